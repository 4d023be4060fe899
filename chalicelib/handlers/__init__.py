"""The edge: what comes in over HTTP or as a Lambda event, and what goes out. `app` may use:

    Api           the Chalice app
    entry_points  a handler for each route and each event source
    auth          who may call a route

Behind them stand `callers` (who sent a request), `contract` (the fields of a request, their limits
and validation), `replies` (the shape of answers and errors), `cors` (which web pages may call) and
`health` (the report of `GET /health`).
"""

from chalicelib.handlers import auth, entry_points
from chalicelib.handlers.api import Api

__all__ = ["Api", "auth", "entry_points"]
