"""The limits of the service, with their sources. Tests may lower them."""

from dataclasses import dataclass


@dataclass
class Limits:
    """Everything is allowed up to and including its limit."""

    # API reference, BatchExecuteStatement: 4 MiB, headers and JSON notation included.
    request_bytes: int = 4 * 2**20
    # User guide, data-api.limitations: 1 MiB. The API reference says "binary response data from
    # the database" of ExecuteStatement, and "response data" of BatchExecuteStatement. So both are
    # counted here: what the database sends, and the body of the answer.
    result_bytes: int = 2**20
    # User guide, data-api.limitations and data-api.troubleshooting: 64 KB a row of a result.
    row_bytes: int = 64 * 2**10
    # API reference, ExecuteStatement: 10 MB of formattedRecords. User guide, data-api-json: 10
    # megabytes. Which of the two megabytes is not said: this is the smaller one.
    formatted_bytes: int = 10 * 10**6
    # User guide, data-api-timeouts.
    call_seconds: float = 45.0
    # API reference, BeginTransaction: three minutes without a call, and 24 hours in all.
    idle_seconds: float = 180.0
    transaction_seconds: float = 24 * 3600.0
    # User guide, data-api.troubleshooting: a transaction may be gone "due to an error from a
    # previous call", without saying which errors. Results that are too large, and timeouts, end
    # one here. With this set, every error of a statement does.
    errors_abort: bool = False
