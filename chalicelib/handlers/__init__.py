"""The edge: what comes in over HTTP or as a Lambda event, and what goes out. `app` may use:

    Api           the Chalice app
    entry_points  a handler for each route and each event source
    auth          who may call a route

Behind them stand `callers` (who sent a request), `json_body` (the JSON in a body), `contract` (the
fields of a request and their limits), `validation` (what is wrong with a request), `replies` (the
shape of answers and errors), `cors` (which web pages may call), `employees` (the function of that
name) and `health` (the report of `GET /health`).
"""

from chalicelib.handlers import auth, entry_points
from chalicelib.handlers.api import Api

__all__ = ["Api", "auth", "entry_points"]
