"""The errors of the service, as a client sees them."""

from typing import Any


class ServiceError(Exception):
    """An error that is answered. `code` names an exception of the service's model, or one that any
    service of AWS may answer. `members`: further members of the exception.

    `aborts`: the transaction of the call is rolled back, and its identifier is not found any more.
    `status`: the HTTP status, where neither the model nor `COMMON` gives it.
    """

    def __init__(
        self,
        code: str,
        message: str = "",
        *,
        aborts: bool = False,
        status: int = 0,
        **members: Any,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.aborts = aborts
        self.status = status
        self.members = members


# What AWS's own front answers for every service, with the HTTP status. No model of a service
# declares them. The user guide shows ValidationException (data-api.differences).
COMMON = {
    "AccessDeniedException": 403,
    "IncompleteSignatureException": 400,
    "MissingAuthenticationTokenException": 403,
    # What the service answers to a request of more than 4 MiB is not documented.
    "RequestEntityTooLargeException": 413,
    "SerializationException": 400,
    "ThrottlingException": 400,
    "UnknownOperationException": 404,
    "ValidationException": 400,
}


def invalid(message: str) -> ServiceError:
    """The request itself is wrong. The user guide (data-api.differences) shows this code for
    multistatements and for `schema`. For parameters that do not fit the statement it shows
    none."""
    return ServiceError("ValidationException", message)


def database_error(message: str, number: int, state: str) -> ServiceError:
    """The database rejected a statement. Clients read the number with the expression
    `Error code: (\\d+); SQLState: (\\d+)$`, as cloud-utils/aurora-data-api does. The code is that
    of Serverless v2; v1 said BadRequestException."""
    return ServiceError(
        "DatabaseErrorException", f"{message}; Error code: {number}; SQLState: {state}"
    )
