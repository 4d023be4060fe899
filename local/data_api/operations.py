"""The five operations, from a valid request to the body of an answer."""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from botocore.model import OperationModel

from local.data_api.call import Call
from local.data_api.columns import ResultOptions, json_value
from local.data_api.database import Connection, Database, Result
from local.data_api.errors import ServiceError, database_error, invalid
from local.data_api.limits import Limits
from local.data_api.parameters import literals
from local.data_api.service_model import Json, ServiceModel
from local.data_api.statement import Statement, parse
from local.data_api.transactions import ABORTED, ENDED, Transaction, Transactions


@dataclass(frozen=True)
class Identity:
    """What the service knows: one cluster, and the one secret for it."""

    cluster_arn: str
    secret_arn: str


class Operations:
    """Safe for threads."""

    def __init__(
        self,
        model: ServiceModel,
        identity: Identity,
        database: Database,
        transactions: Transactions,
        limits: Limits,
    ) -> None:
        self._model = model
        self._identity = identity
        self._database = database
        self._transactions = transactions
        self._limits = limits
        self._by_name: dict[str, Callable[[OperationModel, Json], bytes]] = {
            "ExecuteStatement": self._execute,
            "BatchExecuteStatement": self._batch_execute,
            "BeginTransaction": self._begin,
            "CommitTransaction": self._commit,
            "RollbackTransaction": self._roll_back,
        }

    def answer(self, operation: OperationModel, request: Json) -> bytes:
        """The body of the answer. Raises ServiceError."""
        self._check_identity(request)
        if "schema" in request:
            # User guide, data-api.differences.
            raise invalid("The schema parameter isn't supported")
        return self._by_name[operation.name](operation, request)

    def _check_identity(self, request: Json) -> None:
        """The order of these checks, and what a wrong account or region gives, are not documented:
        AWS's own authorization comes first."""
        cluster, secret = request["resourceArn"], request["secretArn"]
        if not cluster.startswith("arn:") or cluster.count(":") < 6:
            raise ServiceError("BadRequestException", f"Invalid cluster arn: {cluster}")
        if cluster.split(":")[:6] != self._identity.cluster_arn.split(":")[:6]:
            message = f"User is not authorized to perform this action on resource: {cluster}"
            raise ServiceError("AccessDeniedException", message)
        if cluster != self._identity.cluster_arn:
            # User guide, data-api.troubleshooting: "The ARN you specified doesn't precisely match".
            message = f"HttpEndpoint isn't enabled for cluster {cluster.rpartition(':')[2]}"
            raise ServiceError("HttpEndpointNotEnabledException", message)
        if secret != self._identity.secret_arn:
            # The model: "The secret provided wasn't found."
            message = f"Error fetching secret {secret}: it can't be found"
            raise ServiceError("SecretsErrorException", message)

    def _begin(self, operation: OperationModel, request: Json) -> bytes:
        database = request.get("database")
        connection = self._database.connect(database, autocommit=False)
        id = self._transactions.begin(connection, database)
        return self._model.write(operation, {"transactionId": id})

    def _commit(self, operation: OperationModel, request: Json) -> bytes:
        transaction = self._transactions.take(request["transactionId"])
        try:
            transaction.connection.commit()
        finally:
            self._transactions.end(transaction, ENDED)
        return self._model.write(operation, {"transactionStatus": "Transaction Committed"})

    def _roll_back(self, operation: OperationModel, request: Json) -> bytes:
        transaction = self._transactions.take(request["transactionId"])
        self._transactions.end(transaction, ENDED)
        return self._model.write(operation, {"transactionStatus": "Rollback Complete"})

    def _execute(self, operation: OperationModel, request: Json) -> bytes:
        statement = parse(request["sql"])
        statement.refuse_what_aurora_lacks()
        sql = statement.with_literals(literals(request.get("parameters", [])))

        def work(connection: Connection) -> bytes:
            result = connection.run(sql)
            self._check_size(result)
            answer = execute_answer(statement, result, request)
            body = self._model.write(operation, answer)
            self._check_answer(answer, body)
            return body

        return self._run(request, work, bool(request.get("continueAfterTimeout")))

    def _batch_execute(self, operation: OperationModel, request: Json) -> bytes:
        statement = parse(request["sql"])
        statement.refuse_what_aurora_lacks()
        if statement.ends_with_semicolon:
            # API reference, BatchExecuteStatement: "Don't include a semicolon (;) at the end".
            raise invalid("The SQL statement ends with a semicolon")
        if not statement.changes_data:
            # User guide, data-api-operations: "You can run a DML statement". What the service
            # answers otherwise is not documented.
            raise invalid("BatchExecuteStatement runs only INSERT, REPLACE, UPDATE and DELETE")
        sets = request.get("parameterSets", [])
        texts = [statement.with_literals(literals(each)) for each in sets]

        def work(connection: Connection) -> bytes:
            # Without a transaction, those before one that fails stay committed. Whether the service
            # goes on with those behind it is not documented.
            results = [connection.run(sql) for sql in texts]
            updates = [{"generatedFields": generated_fields(each)} for each in results]
            body = self._model.write(operation, {"updateResults": updates})
            if len(body) > self._limits.result_bytes:
                # Not documented for this operation, which does not declare the exception of
                # ExecuteStatement. These are the words of Serverless v1.
                message = "Database returned more than the allowed response size limit"
                raise ServiceError("BadRequestException", message, aborts=True)
            return body

        return self._run(request, work, keeps_running=False)

    def _run(
        self, request: Json, work: Callable[[Connection], bytes], keeps_running: bool
    ) -> bytes:
        """Does the work in the transaction of the request, or with autocommit, in the time of a
        call."""
        id, database = request.get("transactionId"), request.get("database")
        if id is not None:
            transaction = self._transactions.take(id, database)
            connection = transaction.connection
            call = Call(lambda: self._in_transaction(transaction, work))
        else:
            connection = self._database.connect(database, autocommit=True)
            call = Call(lambda: closing(connection, work))
        try:
            return call.answer(self._limits.call_seconds)
        except TimeoutError:
            if not keeps_running:
                self._stop(call, connection)
                if id is not None:
                    self._abort(id)
            message = "Request timed out"
            raise ServiceError(
                "StatementTimeoutException", message, dbConnectionId=connection.id
            ) from None

    def _in_transaction(
        self, transaction: Transaction, work: Callable[[Connection], bytes]
    ) -> bytes:
        try:
            answer = work(transaction.connection)
        except ServiceError as error:
            if error.aborts or self._limits.errors_abort:
                self._transactions.end(transaction, ABORTED)
            else:
                self._transactions.give_back(transaction)
            raise
        except BaseException:
            self._transactions.end(transaction, ABORTED)
            raise
        self._transactions.give_back(transaction)
        return answer

    def _stop(self, call: Call[bytes], connection: Connection) -> None:
        """Ends the statement of a call that took too long, and waits for its end."""
        while call.is_alive():
            with suppress(ServiceError):
                self._database.kill_statement(connection.id)
            call.join(0.1)

    def _abort(self, id: str) -> None:
        with suppress(ServiceError):
            self._transactions.end(self._transactions.take(id), ABORTED)

    def _check_size(self, result: Result) -> None:
        """Raises ServiceError where the database sends too much. A transaction is lost then, as
        cloud-utils/sqlalchemy-aurora-data-api#38 tells of results that are too large."""
        sizes = result.row_bytes()
        largest = max(sizes, default=0)
        if largest > self._limits.row_bytes:
            # User guide, data-api.troubleshooting, in the words of MySQL's JDBC driver. The
            # exception is not documented.
            message = f"Packet for query is too large ({largest} > {self._limits.row_bytes})"
            error = database_error(message, 0, "08S01")
            error.aborts = True
            raise error
        if sum(sizes) > self._limits.result_bytes:
            raise too_large()

    def _check_answer(self, answer: Json, body: bytes) -> None:
        text = answer.get("formattedRecords", "")
        if len(text.encode()) > self._limits.formatted_bytes:
            # User guide, data-api-json.
            message = "The JSON response is larger than 10 megabytes"
            raise ServiceError("BadRequestException", message, aborts=True)
        if not text and len(body) > self._limits.result_bytes:
            raise too_large()


def too_large() -> ServiceError:
    """Clients on Aurora PostgreSQL Serverless v2 report these words and this exception, which the
    model describes as "The size was too large". Serverless v1 said BadRequestException: Database
    returned more than the allowed response size limit."""
    message = "The result exceeds the size limit 1 MB."
    return ServiceError("UnsupportedResultException", message, aborts=True)


def closing(connection: Connection, work: Callable[[Connection], bytes]) -> bytes:
    try:
        return work(connection)
    finally:
        connection.close()


def is_formatted(statement: Statement, request: Json) -> bool:
    """API reference: `formatRecordsAs` is ignored for other statements than SELECT."""
    return request.get("formatRecordsAs") == "JSON" and statement.is_query


def execute_answer(statement: Statement, result: Result, request: Json) -> Json:
    """Either `records` or `generatedFields`, as the answers published in jeremydaly/data-api-client
    have it."""
    if result.columns is None:
        updated = {"numberOfRecordsUpdated": result.records_updated}
        return {**updated, "generatedFields": generated_fields(result)}
    chosen = request.get("resultSetOptions", {})
    options = ResultOptions(
        longs_as_strings=chosen.get("longReturnType") == "STRING",
        decimals_as_numbers=chosen.get("decimalReturnType") == "DOUBLE_OR_LONG",
    )
    columns = result.columns
    records = [
        [column.field(value, options) for column, value in zip(columns, row)] for row in result.rows
    ]
    answer: Json = {"numberOfRecordsUpdated": 0}
    if is_formatted(statement, request):
        # User guide, data-api-json: no columnMetadata then.
        labels = [column.label for column in columns]
        return {**answer, "formattedRecords": formatted(labels, records)}
    if request.get("includeResultMetadata"):
        answer["columnMetadata"] = [column.metadata() for column in columns]
    return {**answer, "records": records}


def formatted(labels: list[str], records: Iterable[list[Json]]) -> str:
    """Raises ServiceError where two columns have one label: user guide, data-api-json."""
    twice = [label for label, count in Counter(labels).items() if count > 1]
    if twice:
        message = f"More than one column of the result has the name {twice[0]}"
        raise ServiceError("BadRequestException", message)
    rows: list[dict[str, Any]] = [dict(zip(labels, map(json_value, row))) for row in records]
    return json.dumps(rows, ensure_ascii=False, separators=(",", ":"))


def generated_fields(result: Result) -> list[Json]:
    """The key that the database made or was given, of the first row of an INSERT. A JDBC driver
    would count on from it for the other rows of the same INSERT. Whether the service does so is not
    documented: so nobody may rely on more than the first."""
    return [{"longValue": result.generated_key}] if result.generated_key else []
