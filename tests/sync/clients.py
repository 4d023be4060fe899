"""The other client of Redis, with redis-cli's words, and the service's own requests for watches."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from redis import Redis

from app import sync
from chalicelib.tables import DIRECTIONS, FORMS, HASH, TABLES, TO_DATABASE, Table
from tests.support.client import Answer, InProcess, hero
from tests.support.witness import Witness

COLUMNS = ("ProductId", "ProductName", "Description", "QuantityInStock", "Price")


class RedisCli:
    """`cli("SET Product:22 ...")`: words without blanks, or a list of words."""

    def __init__(self, redis: "Redis") -> None:
        self.redis = redis

    def __call__(self, *words: str | int) -> Any:
        asked = words[0].split() if len(words) == 1 and isinstance(words[0], str) else words
        return self.redis.execute_command(*asked)

    def row(self, key: str) -> Any:
        """The row under a public key, in either form; None where there is nothing."""
        kind = self("TYPE", key).decode()
        if kind == "none":
            return None
        if kind == "hash":
            found: Any = self.redis.hgetall(key)
            return {name.decode(): value.decode() for name, value in found.items()}
        return json.loads(self("GET", key))

    def put(self, key: str, **changes: object) -> None:
        """Change some columns of a JSON string, as a client without Hashes does."""
        self("SET", key, as_json({**self.row(key), **changes}))


def as_json(row: object) -> str:
    """As the service writes it, without blanks."""
    return json.dumps(row, separators=(",", ":"), ensure_ascii=False)


def product(key: int, **columns: object) -> dict[str, object]:
    values: dict[str, object] = {
        "ProductId": key,
        "ProductName": f"Product {key}",
        "Description": "",
        "QuantityInStock": 10,
        "Price": 400,
    }
    return {**values, **columns}


def watch(
    service: InProcess, keys: list[object], direction: str = "to_database", **fields: str
) -> int:
    answer = ask(service, "watch", SQLS=keys, DIRECTION=direction, **fields)
    assert answer.status == answer.fields["statusCode"] == 200, answer.text
    assert answer.fields["body"] == "watch success"
    assert list(answer.fields) == ["statusCode", "body", "watched"]
    watched = answer.fields["watched"]
    assert isinstance(watched, int)
    return watched


def unwatch(service: InProcess, keys: list[object], **fields: str) -> None:
    answer = ask(service, "unwatch", SQLS=keys, **fields)
    assert answer.fields == {"statusCode": 200, "body": "unwatch success"}


def watched(service: InProcess, **fields: str) -> Any:
    answer = ask(service, "watched", **fields)
    assert list(answer.fields) == ["statusCode", "body"], answer.text
    return answer.fields["body"]


def ask(service: InProcess, request: str, **fields: object) -> Answer:
    return service.post({"REQUEST": request, "TABLE": "products", **fields})


def run(table: str | None = "products") -> Any:
    """What the function returns: of a run that looks where a table is named."""
    return sync({"table": table} if table else {}, None)


def tallies(record: Any) -> Iterator[tuple[int, int, int]]:
    """Looked at, changed, reported: to_cache, then to_database."""
    assert record["outcome"] == "done", record
    for direction in ("to_cache", "to_database"):
        own = record[direction]
        yield own["looked"], own["changed"], own["reported"]


def use_every_public_key(service: InProcess, cli: RedisCli) -> None:
    """In each table and form: a write of a watched row, and runs in both directions."""
    examples: Mapping[str, Mapping[str, object]] = {
        "heroes": {"id": 7, **hero()},
        "products": product(7),
        "employees": {"EmpId": "7", "EmpName": "Ada"},
    }
    for name, row in examples.items():
        for form in FORMS:
            for direction in DIRECTIONS:
                use_public_key(service, cli, TABLES[name], row, form, direction)


def use_public_key(
    service: InProcess,
    cli: RedisCli,
    table: Table,
    row: Mapping[str, object],
    form: str,
    direction: str,
) -> None:
    name, key, column = table.name, row[table.key.name], table.columns[1].name
    public = table.public_key(form, 7)

    def shown() -> object:
        return (cli.row(public) or {}).get(column)

    watch(service, [key], direction, TABLE=name, FORM=form)
    service.write([row], TABLE=name)
    if direction == TO_DATABASE:
        run(name)
    assert shown() == row[column]

    cli("DEL", public)
    cli("RPUSH", public, "no row")
    assert run(name)[direction]["looked"] == 1
    cli("DEL", public, f"{{{public}}}:stamp")  # as ten minutes after the write
    run(name)
    if form == HASH:
        cli("HSET", public, column, "Bea")
    else:
        cli.put(public, **{column: "Bea"})
    assert run(name)[direction] == {"looked": 1, "changed": 1, "reported": 0}
    assert shown() == ("Bea" if direction == TO_DATABASE else row[column])
    assert service.read([key], TABLE=name).rows[0][column] == shown()
    unwatch(service, [key], TABLE=name, FORM=form)
    cli("DEL", public)


def rows(witness: Witness, *keys: int) -> list[dict[str, object]]:
    found = witness.query(
        f"SELECT {','.join(COLUMNS)} FROM products WHERE ProductId IN %s ORDER BY 1", [keys]
    )
    return [dict(zip(COLUMNS, row)) for row in found]
