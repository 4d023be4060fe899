"""Why a service cannot be graded, in words: from its HTTP status, or from the error of requests."""

import requests
import urllib3.exceptions

SHOWN_CHARACTERS = 200
STAGE_PATH = "the URL of a stage ends in its name, for example /api/"
WANTS_SIGNED = "it wants signed requests (API_AUTH=iam), which make grade cannot send"
# One of them is in API Gateway's error type or text when a request is not signed as it wants.
IAM_WORDS = ("accessdenied", "signature", "unrecognizedclient", "not authorized")


def refusal(response: requests.Response, has_key: bool) -> str | None:
    """Why the service did not take the request; None where it did, also with an error of its
    own."""
    status = response.status_code
    if 300 <= status < 400:
        return f"HTTP {status}: ask {response.headers.get('Location', 'another URL')} instead"
    if status in (404, 405):
        return f"HTTP {status}: it takes no POST at this path; {STAGE_PATH}"
    if status == 429:
        return "HTTP 429: it takes no more requests now, a limit is reached; try again later"
    if status in (401, 403):
        return f"HTTP {status}: {_forbidden(response, has_key)}. It says: {_words(response)}"
    return None


def unreachable(error: requests.RequestException, timeout_seconds: int) -> str:
    """The reason of the error, without the objects that requests wraps it in."""
    match error:
        case requests.Timeout():
            return f"no answer within {timeout_seconds} s"
        case requests.exceptions.SSLError():
            return "its TLS or its certificate is not accepted"
        case requests.exceptions.ProxyError():
            return "the proxy of this machine's environment does not reach it"
        case requests.ConnectionError():
            return _no_connection(error)
        case _:
            return str(error)


def _forbidden(response: requests.Response, has_key: bool) -> str:
    said = f"{response.headers.get('x-amzn-ErrorType', '')} {response.text}".lower()
    if "authenticationtoken" in said.replace(" ", ""):
        return f"nothing is served at this path ({STAGE_PATH}), or {WANTS_SIGNED}"
    if any(word in said for word in IAM_WORDS):
        return WANTS_SIGNED
    if has_key:
        return "it does not accept this KEY: it is wrong, disabled or of another stage"
    return "it wants an API key (API_AUTH=key): set KEY"


def _no_connection(error: requests.ConnectionError) -> str:
    cause = error.args[0] if error.args else None
    match getattr(cause, "reason", cause):
        case urllib3.exceptions.NameResolutionError():
            return "no host has this name"
        case urllib3.exceptions.ProtocolError():
            return "it closed the connection instead of answering"
        case _:
            return "nothing listens there"


def _words(response: requests.Response) -> str:
    return " ".join(response.text[:SHOWN_CHARACTERS].split()) or "nothing"
