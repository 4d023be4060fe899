"""Every error that the service raises on purpose, with the HTTP status that the caller sees.

    HerocacheError
    ├── BadRequest            400  the request is wrong; the text says what, where and what to do
    │   ├── RowRejected            the database rejects a row; `replies` says which in the request
    │   ├── KeyTooFar              the key of a new row is far above all others
    │   └── NoKeyLeft              the database has no key left to give to new rows
    ├── Forbidden             403  a web page that may not use the service, or who may only read
    ├── NotFound              404  there is no such path
    ├── MethodNotAllowed      405  the path does not take this HTTP method
    ├── Conflict              409  an idempotency key was used for another request before
    ├── CounterOutOfRange     409  an increment would take a counter past its minimum or maximum
    ├── TooLarge              413  too many items, or a result that does not fit into one answer
    │   └── TooManyRows            so many rows cannot fit, whatever is in them
    ├── UnsupportedEncoding   415  the body is compressed in a way that is not read here
    ├── DatabaseUnavailable   503  the database cannot be reached now; nothing was written
    │   └── OutcomeUnknown    503  the connection was lost during a write: it may have happened
    ├── CountersUnavailable   503  Redis cannot tell what was added to write-behind counters
    ├── PublicKeysUnavailable 503  Redis cannot be told of a watch that has begun or ended
    ├── ConfigurationError    500  a setting is missing or wrong, or DB_USER lacks a right; named
    ├── SchemaMismatch        500  a table differs from its declaration; the text says how
    ├── NotAtOnce                  never reaches a caller: the rows are written in another way
    ├── AlreadyClaimed             never reaches a caller: a request came with its key before
    ├── Superseded                 never reaches a caller: a run of the sync lost its lease
    ├── FileRejected               an uploaded file can never be loaded; recorded, not retried
    ├── BucketUnavailable          S3 cannot be reached or used; the event is delivered again
    └── CacheUnavailable           never reaches a caller: the database answers
        └── AnotherServer          Redis failed over or was restored: its entries are not believed

Anything else that escapes is a bug: the caller sees `InternalError`, the log has the traceback.
"""

import socket
import ssl

CONNECTION_LOST = "the connection was lost"
# OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH.
_OTHER_NAME = (62, 64)


class HerocacheError(Exception):
    """`status`: the HTTP status. `retry_after_seconds`: the header Retry-After, unless it is
    None."""

    status = 500
    retry_after_seconds: int | None = None

    @property
    def kind(self) -> str:
        return type(self).__name__

    def __str__(self) -> str:
        """On one line, because it may quote an object key or another text of a caller."""
        return one_line(super().__str__())


class BadRequest(HerocacheError):
    status = 400


class RowRejected(BadRequest):
    """The database rejects the row at `index` because of its value in `column`. `column` is empty
    where the server does not name it. Nothing was written."""

    def __init__(self, index: int, column: str, reason: str) -> None:
        super().__init__(f"row {index + 1}: {column}{': ' * bool(column)}{reason}")
        self.index = index
        self.column = column
        self.reason = reason


class KeyTooFar(BadRequest):
    """The `key` of a new row of `table` would use up the keys that the database gives. `where`: how
    far it is above what is allowed."""

    def __init__(self, table: str, column: str, key: int, where: str) -> None:
        super().__init__(
            f"{table}: the {column} {key} is {where}: too few would be left for rows without"
            f" {column}; give a lower one, or none"
        )


class NoKeyLeft(BadRequest):
    """The database has given all keys up to `maximum`. `identifier`: the name of `table` as SQL
    needs it."""

    def __init__(self, table: str, column: str, maximum: int, identifier: str) -> None:
        super().__init__(
            f"{table}: no free {column} above the highest one is left; give each row its {column},"
            f" up to {maximum}; or, where the highest row was deleted, have an operator"
            f" run: ALTER TABLE {identifier} AUTO_INCREMENT = 1 (the database goes on after the"
            f" highest {column} that is there)"
        )


class Forbidden(HerocacheError):
    status = 403


class NotFound(HerocacheError):
    status = 404


class MethodNotAllowed(HerocacheError):
    status = 405


class Conflict(HerocacheError):
    status = 409


class CounterOutOfRange(HerocacheError):
    """The increment at `index` of the counter `column`. Nothing was changed."""

    status = 409

    def __init__(self, index: int, column: str, value: int, amount: int, limit: str) -> None:
        self.reason = f"{value} {amount:+d} would pass {limit}; nothing was changed"
        super().__init__(f"row {index + 1}: {column}: {self.reason}")
        self.index = index
        self.column = column


class TooLarge(HerocacheError):
    status = 413


class TooManyRows(TooLarge):
    """More than `most` rows have one of the values that were asked for in `column`."""

    def __init__(self, column: str, most: int) -> None:
        super().__init__(f"more than {most} rows have these {column} values")
        self.column = column
        self.most = most


class UnsupportedEncoding(HerocacheError):
    status = 415


class DatabaseUnavailable(HerocacheError):
    """`has_other_writer`: the server answers, but it is a replica now. Another server is the
    writer, and other containers may reach it."""

    status = 503
    retry_after_seconds = 2
    has_other_writer = False


class OutcomeUnknown(DatabaseUnavailable):
    """A COMMIT, or a statement that commits, was sent and its answer never came."""


class CountersUnavailable(HerocacheError):
    """A table with write-behind counters can be neither read nor changed while Redis is away.
    Nothing was changed."""

    status = 503
    retry_after_seconds = 2


class PublicKeysUnavailable(HerocacheError):
    """A watch has begun or ended, and Redis does not know. The request may be sent again."""

    status = 503
    retry_after_seconds = 2


class ConfigurationError(HerocacheError):
    pass


class SchemaMismatch(HerocacheError):
    """The text says what differs, and the statement that mends it."""


class NotAtOnce(HerocacheError):
    """The rows cannot be inserted and committed in one round trip, or not all be replaced at once.
    Nothing was written."""


class AlreadyClaimed(HerocacheError):
    """An earlier transaction has claimed the idempotency key. Nothing was written."""


class Superseded(HerocacheError):
    """A run of the sync does not hold its lease any more. Nothing was written."""


class FileRejected(HerocacheError):
    """The text says what is wrong with the file, and where. `rejected`: how many rows the report
    names."""

    def __init__(self, message: str, rejected: int = 0) -> None:
        super().__init__(message)
        self.rejected = rejected


class BucketUnavailable(HerocacheError):
    pass


class CacheUnavailable(HerocacheError):
    """Redis did not answer in time, or answered with an error. The text tells an operator why."""


class AnotherServer(CacheUnavailable):
    """The server that answers is not the one that the entries were written to."""

    def __init__(self, server: str) -> None:
        super().__init__("it is another server than the one the entries were written to")
        self.server = server


def one_line(text: str) -> str:
    """`text` for a log or a terminal: each character that is not printed is escaped, so that the
    text of a caller cannot look like a line of the log or move the cursor."""
    if text.isprintable():
        return text
    return "".join([each if each.isprintable() else ascii(each)[1:-1] for each in text])


def network_words(error: BaseException | None) -> str:
    """Why a connection could not be made or was lost, in words that name no host."""
    if isinstance(error, socket.gaierror):
        return "no host has this name"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens on this port"
    if isinstance(error, TimeoutError):
        return "no answer in time: is there a route (subnet, security group), is the server up?"
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _OTHER_NAME:
            return "its TLS certificate is for another host name"
        return "its TLS certificate is not signed by a trusted authority"
    if isinstance(error, ssl.SSLError):
        return "the TLS handshake failed: does the server speak TLS on this port?"
    return CONNECTION_LOST
