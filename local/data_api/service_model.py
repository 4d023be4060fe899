"""Requests and answers by botocore's own model of the service, which comes from AWS."""

import base64
import binascii
import json
import math
from collections.abc import Callable
from typing import Any

import botocore.session
from botocore.model import OperationModel, Shape, StructureShape
from botocore.validate import ParamValidator

from local.data_api.errors import COMMON, ServiceError, invalid

Json = dict[str, Any]

OPERATIONS = (
    "BatchExecuteStatement",
    "BeginTransaction",
    "CommitTransaction",
    "ExecuteStatement",
    "RollbackTransaction",
)
INTEGERS = {"integer": 2**31, "long": 2**63}


class AgainstTheModel(Exception):
    """We were about to answer something that the service cannot answer: a bug of ours."""


class ServiceModel:
    """The five operations. ExecuteSql is left out: clusters of today do not support it (user guide,
    data-api.differences)."""

    def __init__(self) -> None:
        model = botocore.session.Session().get_service_model("rds-data")
        operations = [model.operation_model(name) for name in OPERATIONS]
        self._by_path = {each.http["requestUri"]: each for each in operations}

    def operation(self, method: str, path: str) -> OperationModel:
        """The operation of a request line. Raises ServiceError."""
        operation = self._by_path.get(path)
        if operation is None or method != operation.http["method"]:
            raise ServiceError("UnknownOperationException")
        return operation

    def read(self, operation: OperationModel, body: bytes) -> Json:
        """The members of a request, blobs as bytes. Raises ServiceError where the model does not
        allow them. AWS ignores members that it does not know; here they are errors."""
        try:
            request = json.loads(body, parse_constant=not_json)
        except ValueError as error:
            raise ServiceError("SerializationException", str(error)) from error
        shape = operation.input_shape
        members = converted(shape, request, blob_from_base64)
        problem = problem_with(shape, members)
        if problem:
            raise invalid(problem)
        return dict(members)

    def write(self, operation: OperationModel, answer: Json) -> bytes:
        """The body of an answer. Raises AgainstTheModel."""
        return write(operation.output_shape, answer)

    def write_error(
        self, operation: OperationModel | None, error: ServiceError
    ) -> tuple[int, bytes]:
        """Status and body of an error. Raises AgainstTheModel where the operation does not declare
        it, and it is none of those that every service has."""
        declared = {each.name: each for each in operation.error_shapes} if operation else {}
        shape = declared.get(error.code)
        message = {"message": error.message} if error.message else {}
        if shape is not None:
            members = {**message, **error.members}
            # Some exceptions have no message in the model.
            known = {name: value for name, value in members.items() if name in shape.members}
            return int(shape.metadata["error"]["httpStatusCode"]), write(shape, known)
        status = error.status or COMMON.get(error.code)
        if not status:
            place = operation.name if operation else "no operation"
            raise AgainstTheModel(f"{place} does not answer {error.code}")
        return status, json.dumps(message).encode()


def write(shape: StructureShape, members: Json) -> bytes:
    problem = problem_with(shape, members)
    if problem:
        raise AgainstTheModel(problem)
    encoded = converted(shape, members, lambda blob: base64.b64encode(blob).decode())
    return json.dumps(encoded, ensure_ascii=False, separators=(",", ":")).encode()


def not_json(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def blob_from_base64(text: Any) -> Any:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise ServiceError("SerializationException", "a blob is not base64") from error


def converted(shape: Shape, value: Any, convert_blob: Callable[[Any], Any]) -> Any:
    """The same value with its blobs converted. A member that is null is left out."""
    if shape.type_name == "structure" and isinstance(value, dict):
        return {
            name: converted(shape.members[name], member, convert_blob)
            if name in shape.members
            else member
            for name, member in value.items()
            if member is not None
        }
    if shape.type_name == "list" and isinstance(value, list):
        return [converted(shape.member, each, convert_blob) for each in value]
    return convert_blob(value) if shape.type_name == "blob" else value


def problem_with(shape: Shape, value: Any) -> str:
    """What the model does not allow in a value, or ''."""
    report = ParamValidator().validate(value, shape)
    if report.has_errors():
        return str(report.generate_report())
    return beyond(shape, value, "")


def beyond(shape: Shape, value: Any, name: str) -> str:
    """What botocore leaves to the service to check: largest lengths, enumerations, the range of
    integers, characters that UTF-8 does not have. '' where all is well."""
    if shape.type_name == "structure":
        found = (beyond(shape.members[key], each, f"{name}.{key}") for key, each in value.items())
        return next(filter(None, found), "")
    if shape.type_name == "list":
        found = (beyond(shape.member, each, f"{name}[{i}]") for i, each in enumerate(value))
        return next(filter(None, found), "")
    if shape.type_name == "string":
        return beyond_string(shape, value, name)
    if shape.type_name in INTEGERS:
        end = INTEGERS[shape.type_name]
        if isinstance(value, bool) or not -end <= value < end:
            return f"{name[1:]}: expected {shape.type_name}, got {value!r}"
    if shape.type_name == "double" and (isinstance(value, bool) or not math.isfinite(value)):
        return f"{name[1:]}: expected a finite number, got {value!r}"
    return ""


def beyond_string(shape: Shape, value: str, name: str) -> str:
    most = shape.metadata.get("max")
    if most is not None and len(value) > most:
        return (
            f"Value at '{name[1:]}' failed to satisfy constraint: Member must have length less"
            f" than or equal to {most}"
        )
    if shape.enum and value not in shape.enum:
        members = ", ".join(shape.enum)
        return (
            f"Value '{value}' at '{name[1:]}' failed to satisfy constraint: Member must satisfy"
            f" enum value set: [{members}]"
        )
    try:
        value.encode()
    except UnicodeEncodeError:
        return f"{name[1:]}: not Unicode"
    return ""
