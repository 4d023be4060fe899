"""The edge: what comes in over HTTP or as a Lambda event, and what goes out. For `app`:

    Api         the Chalice app
    requests    a handler for each route and each event source
    auth        who may call a route

Behind them stand `contract` (fields, limits and error texts of requests and answers), `cors`
(which web pages may call) and `health` (the report of `GET /health`).
"""

from chalicelib.handlers import auth, requests
from chalicelib.handlers.api import Api

__all__ = ["Api", "auth", "requests"]
