"""Every kind of bad input: its name, the request, and a piece of the message that names the place.

A request is bytes, or a value that is sent as JSON. Where `write` is used the bad row is the
second of two, so that a first one would be there if anything had been written.
"""

import json
from typing import NamedTuple

from tests.support.client import hero


class Bad(NamedTuple):
    name: str
    request: object
    message: str


def read(*values: object, **fields: object) -> dict[str, object]:
    return {"REQUEST": "read", "SQLS": list(values), **fields}


def write(row: object) -> dict[str, object]:
    return {"REQUEST": "write", "SQLS": [hero(), row]}


def delete(*keys: object, **fields: object) -> dict[str, object]:
    return {"REQUEST": "delete", "SQLS": list(keys), **fields}


def without(request: dict[str, object], name: str) -> dict[str, object]:
    return {key: value for key, value in request.items() if key != name}


def raw(request: object, placeholder: str, text: str) -> bytes:
    """The request as JSON with `text` in the place of the string `placeholder`."""
    whole = json.dumps(request)
    assert whole.count(json.dumps(placeholder)) == 1
    return whole.replace(json.dumps(placeholder), text).encode()


NOT_JSON = [
    Bad("an empty body", b"", 'body: empty; send a JSON object, such as {"REQUEST"'),
    Bad("white space", b" \n ", "body: empty; send a JSON object"),
    Bad("a byte that is not UTF-8", b'{"REQUEST": "\xff"}', "body: not UTF-8 at byte 13"),
    Bad("a lone surrogate in UTF-8", b'{"REQUEST": "\xed\xa0\x80"}', "body: not UTF-8 at byte 13"),
    Bad("UTF-16", json.dumps(read(1)).encode("utf-16"), "body: not UTF-8 at byte 0"),
    Bad("a form", b"REQUEST=read&SQLS=1", "body: not JSON at line 1 column 1"),
    Bad("single quotes", b"{'REQUEST': 'read', 'SQLS': [1]}", "body: not JSON at line 1 column 2"),
    Bad("a truncated body", b'{"REQUEST": "read", "SQLS": [1, 2', "body: not JSON at line 1"),
    Bad("a truncated string", b'{"REQUEST": "read', "body: not JSON at line 1 column 13"),
    Bad(
        "two objects", b'{"REQUEST": "read", "SQLS": [1]}\n{}', "body: not JSON at line 2 column 1"
    ),
    Bad(
        "zeros in front of a number",
        b'{"REQUEST": "read", "SQLS": [007]}',
        "body: not JSON at line 1 column 31: a number has no zeros in front",
    ),
    Bad("two numbers", b'{"REQUEST": "read", "SQLS": [0 7]}', "Expecting ',' delimiter"),
    Bad("a trailing comma", b'{"REQUEST": "read", "SQLS": [1,]}', "body: not JSON at line 1"),
    Bad("a raw control character", b'{"REQUEST": "re\nad"}', "body: not JSON at line 1"),
    Bad("lists 100,000 deep", b"[" * 100_000, "body: nested too deeply"),
    Bad("closed lists 100,000 deep", b"[" * 100_000 + b"]" * 100_000, "body: nested too deeply"),
    Bad("objects 100,000 deep", b'{"a":' * 100_000, "body: nested too deeply"),
    Bad("SQLS 100,000 deep", raw(read("?"), "?", "[" * 10**5 + "]" * 10**5), "nested too deeply"),
    Bad(
        "a truncated body behind an integer of 5,000 digits",
        b'{"REQUEST": "read", "SQLS": [' + b"9" * 5000,
        "body: not JSON at line 1 column 5030",
    ),
    Bad(
        "lists 100,000 deep behind an integer of 5,000 digits",
        b"[" + b"9" * 5000 + b"," + b"[" * 100_000,
        "body: nested too deeply",
    ),
    Bad("a field twice", b'{"REQUEST": "read", "SQLS": [1], "SQLS": [2]}', "'SQLS' twice"),
    Bad("a column twice", raw(write("?"), "?", '{"xp": 1, "hero": "a", "xp": 1}'), "'xp' twice"),
]

NOT_AN_OBJECT = [
    Bad("a list", [read(1)], "body: expected a JSON object, got a list"),
    Bad("a string", "read", "body: expected a JSON object, got a string"),
    Bad("a number", 1, "body: expected a JSON object, got a number"),
    Bad("a boolean", True, "body: expected a JSON object, got a boolean"),
    Bad("null", None, "body: expected a JSON object, got null"),
    Bad("NaN", b"NaN", "body: expected a JSON object"),
]

FIELDS = [
    Bad("an empty object", {}, "REQUEST: missing"),
    Bad(
        "no REQUEST",
        without(read(1), "REQUEST"),
        'REQUEST: missing; give one of "read", "write", "delete"',
    ),
    Bad("REQUEST null", {**read(1), "REQUEST": None}, "REQUEST: expected one of"),
    Bad("REQUEST misspelt", {**read(1), "REQUEST": "raed"}, "got 'raed'"),
    Bad("REQUEST in capitals", {**read(1), "REQUEST": "READ"}, "REQUEST: expected one of"),
    Bad("REQUEST a list", {**read(1), "REQUEST": ["read"]}, "REQUEST: expected one of"),
    Bad("REQUEST a number", {**read(1), "REQUEST": 1}, "REQUEST: expected one of"),
    Bad("a misspelt field", {**without(read(1), "REQUEST"), "REQEST": "read"}, "'REQEST'"),
    Bad("a field in lower case", {**read(1), "sqls": [1]}, "'sqls': no such field; there are REQ"),
    Bad("a field too many", {**read(1), "OFFSET": 5}, "'OFFSET': no such field"),
    Bad("no SQLS", without(read(), "SQLS"), "SQLS: missing; give a list of values"),
    Bad("no SQLS to write", {"REQUEST": "write"}, "SQLS: missing; give a list of rows"),
    Bad("no SQLS to delete", {"REQUEST": "delete"}, "SQLS: missing; give a list of keys"),
    Bad("SQLS null", {**read(), "SQLS": None}, "SQLS: expected a list of values, got null"),
    Bad("SQLS an object", {**read(), "SQLS": {"0": 1}}, "SQLS: expected a list"),
    Bad("SQLS a string", {**read(), "SQLS": "1"}, "SQLS: expected a list of values, got a string"),
    Bad("SQLS a number", {**read(), "SQLS": 1}, "SQLS: expected a list of values, got a number"),
    Bad("SQLS one key", {**delete(), "SQLS": 1}, "SQLS: expected a list of keys, got a number"),
    Bad("SQLS one row", {**write(0), "SQLS": hero()}, "SQLS: expected a list of rows, got an obj"),
    Bad("USE_CACHE null", read(1, USE_CACHE=None), 'USE_CACHE: expected "True" or "False", in any'),
    Bad("USE_CACHE misspelt", read(1, USE_CACHE="Ture"), "USE_CACHE: expected"),
    Bad("USE_CACHE yes", read(1, USE_CACHE="yes"), "USE_CACHE: expected"),
    Bad("USE_CACHE empty", read(1, USE_CACHE=""), "USE_CACHE: expected"),
    Bad("USE_CACHE padded", read(1, USE_CACHE=" True"), "USE_CACHE: expected"),
    Bad("USE_CACHE 1", read(1, USE_CACHE=1), "USE_CACHE: expected"),
    Bad("USE_CACHE 0", read(1, USE_CACHE=0), "USE_CACHE: expected"),
    Bad("USE_CACHE a list", read(1, USE_CACHE=[True]), "USE_CACHE: expected"),
    Bad("USE_CACHE of a write", {**write(hero()), "USE_CACHE": 2}, "USE_CACHE: expected"),
    Bad("USE_CACHE of a delete", delete(1, USE_CACHE="no"), "USE_CACHE: expected"),
    Bad("TABLE null", read(1, TABLE=None), "TABLE: expected one of"),
    Bad("TABLE unknown", read(1, TABLE="heros"), "got 'heros'"),
    Bad("TABLE in capitals", read(1, TABLE="HEROES"), "TABLE: expected one of"),
    Bad("TABLE empty", read(1, TABLE=""), "TABLE: expected one of"),
    Bad("TABLE a list", read(1, TABLE=["heroes"]), "TABLE: expected one of"),
    Bad("TABLE an object", read(1, TABLE={}), "TABLE: expected one of"),
    Bad("TABLE not declared", read(1, TABLE="cache_generation"), "TABLE: expected one of"),
    Bad("TABLE of another schema", read(1, TABLE="mysql.user"), "TABLE: expected one of"),
    Bad("TABLE of a write unknown", {**write(hero()), "TABLE": "x"}, "TABLE: expected one of"),
    Bad("BY null", read(1, BY=None), "BY: expected one of"),
    Bad("BY misspelt", read(1, BY="px"), 'BY: expected one of "id", "xp"'),
    Bad(
        "BY a column that is no lookup",
        read(1, BY="name"),
        'BY: expected one of "id", "xp", got \'name\'; heroes can be read by these columns only',
    ),
    Bad(
        "BY a lookup of another table",
        read(1, BY="xp", TABLE="products"),
        "BY: expected \"ProductId\", got 'xp'; products can be read by its key only",
    ),
    Bad("BY a number", read(1, BY=0), "BY: expected one of"),
    Bad("BY a list", read(1, BY=["id"]), "BY: expected one of"),
    Bad("BY of a write", {**write(hero()), "BY": "id"}, "BY: only a read has it; leave it"),
    Bad("BY of a delete", delete(1, BY="id"), "BY: only a read has it; leave it out"),
    Bad("BY a lookup of a delete", delete(1, BY="xp"), "BY: only a read has it"),
]


def write_once(key: object) -> dict[str, object]:
    return {**write(hero()), "IDEMPOTENCY_KEY": key}


KEY = "IDEMPOTENCY_KEY (header Idempotency-Key)"
IDEMPOTENCY_KEYS = [
    Bad("a key of a read", read(1, IDEMPOTENCY_KEY="k"), "IDEMPOTENCY_KEY: a read changes nothing"),
    Bad("an empty key", write_once(""), f"{KEY}: a key is not empty"),
    Bad("a padded key", write_once(" k"), f"{KEY}: a key is not empty and has no white"),
    Bad("a key null", write_once(None), f"{KEY}: expected a string, got null"),
    Bad("a key a number", write_once(7), f"{KEY}: expected a string, got 7"),
    Bad("a key a list", write_once(["k"]), f"{KEY}: expected a string, got ['k']"),
    Bad("a key of 256 characters", write_once("k" * 256), f"{KEY}: expected at most 255"),
    Bad("a key with a NUL", write_once("a\0b"), f"{KEY}: a string cannot hold a NUL"),
    Bad("half a surrogate pair as a key", write_once("\ud800"), f"{KEY}: a string cannot"),
    Bad("a key of a delete null", delete(1, IDEMPOTENCY_KEY=None), f"{KEY}: expected a"),
]

RANGE = "expected an integer from 1 to 4294967295"
NO_INTEGER = "SQLS[1]: expected an integer, got"

IDS = [
    Bad("an id true", read(1, True), f"{NO_INTEGER} true"),
    Bad("an id false", read(1, False), f"{NO_INTEGER} false"),
    Bad("an id null", read(1, None), f"{NO_INTEGER} null"),
    Bad("an id a float", read(1, 1.5), f"{NO_INTEGER} 1.5"),
    Bad("an id a whole float", read(1, 2.0), f"{NO_INTEGER} 2.0"),
    Bad("an id with an exponent", raw(read(1, "?"), "?", "1e2"), f"{NO_INTEGER} 100.0"),
    Bad("an id minus zero", raw(read(1, "?"), "?", "-0"), f"{NO_INTEGER} -0"),
    Bad("an id minus zero as a float", raw(read(1, "?"), "?", "-0.0"), f"{NO_INTEGER} -0.0"),
    Bad("an id NaN", raw(read(1, "?"), "?", "NaN"), f"{NO_INTEGER} NaN"),
    Bad("an id Infinity", raw(read(1, "?"), "?", "Infinity"), f"{NO_INTEGER} Infinity"),
    Bad("an id -Infinity", raw(read(1, "?"), "?", "-Infinity"), f"{NO_INTEGER} -Infinity"),
    Bad("an id 1e999", raw(read(1, "?"), "?", "1e999"), f"{NO_INTEGER} inf"),
    Bad(
        "an id of 5,000 digits", raw(read(1, "?"), "?", "9" * 5000), "SQLS[1]: expected an integer"
    ),
    Bad("an id of -5,000 digits", raw(read(1, "?"), "?", "-" + "9" * 5000), "of 5000 digits"),
    Bad("an id of 100 digits", raw(read(1, "?"), "?", "9" * 100), f"SQLS[1]: {RANGE}"),
    Bad("an id of 5,000 digits as text", read(1, "9" * 5000), f"{NO_INTEGER} '999"),
    Bad("an id empty", read(1, ""), f"{NO_INTEGER} ''"),
    Bad("an id padded before", read(1, " 1"), f"{NO_INTEGER} ' 1'"),
    Bad("an id padded behind", read(1, "1\n"), f"{NO_INTEGER} '1\\n'"),
    Bad("an id with a plus", read(1, "+1"), f"{NO_INTEGER} '+1': write 1"),
    Bad("an id with zeros in front", read(1, "007"), f"{NO_INTEGER} '007': write 7"),
    Bad("an id with a minus and a zero", read(1, "-0"), f"{NO_INTEGER} '-0': write 0"),
    Bad("an id with a leading zero", read(1, "01"), f"{NO_INTEGER} '01'"),
    Bad("an id with an underscore", read(1, "1_0"), f"{NO_INTEGER} '1_0'"),
    Bad("an id in other digits", read(1, "１"), f"{NO_INTEGER} '１'"),
    Bad("an id in hexadecimal", read(1, "0x1"), f"{NO_INTEGER} '0x1'"),
    Bad("an id a word", read(1, "ten"), f"{NO_INTEGER} 'ten'"),
    Bad("an id '-0'", read(1, "-0"), f"{NO_INTEGER} '-0'"),
    Bad("an id 0", read(1, 0), f"SQLS[1]: {RANGE}, got 0"),
    Bad("an id '0'", read(1, "0"), f"SQLS[1]: {RANGE}, got 0"),
    Bad("an id negative", read(1, -1), f"SQLS[1]: {RANGE}, got -1"),
    Bad("an id above the highest", read(1, 2**32), f"SQLS[1]: {RANGE}, got 4294967296"),
    Bad("an id above as text", read(1, "4294967296"), f"SQLS[1]: {RANGE}"),
    Bad("an id a list", read(1, [1]), f"{NO_INTEGER} [1]"),
    Bad("an id an object", read(1, {"id": 1}), f"{NO_INTEGER} {{'id': 1}}"),
    Bad("an id to delete true", delete(1, True), f"{NO_INTEGER} true"),
    Bad("an id to delete null", delete(1, None), f"{NO_INTEGER} null"),
    Bad("an id to delete a word", delete(1, "all"), f"{NO_INTEGER} 'all'"),
    Bad("an id to delete 0", delete(1, 0), f"SQLS[1]: {RANGE}, got 0"),
    Bad("a row to delete", delete(1, {"id": 2, **hero()}), f"{NO_INTEGER} {{'"),
    Bad("an xp out of range", read(1, 2**31, BY="xp"), "SQLS[1]: expected an integer from -2147"),
    Bad("an xp a float", read(1, 1.0, BY="xp"), f"{NO_INTEGER} 1.0"),
]

ROWS = [
    Bad("a row a list", write([1]), "SQLS[1]: expected a row object, got a list"),
    Bad("a row null", write(None), "SQLS[1]: expected a row object, got null"),
    Bad("a row a string", write("INSERT"), "SQLS[1]: expected a row object, got a string"),
    Bad("a row a number", write(1), "SQLS[1]: expected a row object, got a number"),
    Bad("a row empty", write({}), "SQLS[1].hero: missing"),
    Bad(
        "an unknown column",
        write(hero(colour="red")),
        "SQLS[1]: heroes has no column 'colour'; it has id, hero, power, name, xp, color",
    ),
    Bad("a column in capitals", write(hero(XP=1)), "SQLS[1]: heroes has no column 'XP'"),
    Bad("a missing column", write(without(hero(), "xp")), "SQLS[1].xp: missing"),
    Bad("a column null", write(hero(name=None)), "SQLS[1].name: expected a string, got null"),
    Bad(
        "a column a list", write(hero(name=["Ada"])), "SQLS[1].name: expected a string, got ['Ada']"
    ),
    Bad("a column an object", write(hero(power={})), "SQLS[1].power: expected a string, got {}"),
    Bad("a column a number", write(hero(color=7)), "SQLS[1].color: expected a string, got 7"),
    Bad("a column a boolean", write(hero(hero=True)), "SQLS[1].hero: expected a string, got true"),
    Bad("256 characters", write(hero(name="é" * 256)), "SQLS[1].name: expected at most 255 char"),
    Bad(
        "256 characters of 4 bytes", write(hero(hero="🦊" * 256)), "SQLS[1].hero: expected at most"
    ),
    Bad(
        "half a surrogate pair", write(hero(name="a\ud800b")), "SQLS[1].name: a string cannot hold"
    ),
    Bad("the other half", write(hero(power="\udfff")), "SQLS[1].power: a string cannot hold half"),
    Bad("a NUL", write(hero(color="a\0b")), "SQLS[1].color: a string cannot hold a NUL"),
    Bad("an xp a word", write(hero(xp="ten")), "SQLS[1].xp: expected an integer, got 'ten'"),
    Bad("an xp null", write(hero(xp=None)), "SQLS[1].xp: expected an integer, got null"),
    Bad("an xp true", write(hero(xp=True)), "SQLS[1].xp: expected an integer, got true"),
    Bad("an xp a whole float", write(hero(xp=10.0)), "SQLS[1].xp: expected an integer, got 10.0"),
    Bad("an xp empty", write(hero(xp="")), "SQLS[1].xp: expected an integer, got ''"),
    Bad("an xp padded", write(hero(xp="10 ")), "SQLS[1].xp: expected an integer, got '10 '"),
    Bad("an xp minus zero", raw(write(hero(xp="?")), "?", "-0"), "SQLS[1].xp: expected an integer"),
    Bad("an xp NaN", raw(write(hero(xp="?")), "?", "NaN"), "SQLS[1].xp: expected an integer"),
    Bad("an xp 5,000 digits", raw(write(hero(xp="?")), "?", "1" * 5000), "SQLS[1].xp: expected an"),
    Bad(
        "an xp too high", write(hero(xp=2**31)), "SQLS[1].xp: expected an integer from -2147483648"
    ),
    Bad("an xp too low", write(hero(xp=-(2**31) - 1)), "SQLS[1].xp: expected an integer from"),
    Bad("an xp too high as text", write(hero(xp="2147483648")), "SQLS[1].xp: expected an integer"),
    Bad("a key 0", write({"id": 0, **hero()}), f"SQLS[1].id: {RANGE}, got 0"),
    Bad("a key negative", write({"id": -1, **hero()}), f"SQLS[1].id: {RANGE}, got -1"),
    Bad("a key too high", write({"id": 2**32, **hero()}), f"SQLS[1].id: {RANGE}"),
    Bad("a key null", write({"id": None, **hero()}), "got null; leave it out, and the database"),
    Bad("a key true", write({"id": True, **hero()}), "SQLS[1].id: expected an integer, got true"),
    Bad("a key a float", write({"id": 1.0, **hero()}), "SQLS[1].id: expected an integer, got 1.0"),
    Bad("a key empty", write({"id": "", **hero()}), "SQLS[1].id: expected an integer, got ''"),
    Bad(
        "a key twice",
        {"REQUEST": "write", "SQLS": [{"id": 8, **hero()}, hero(), {"id": "8", **hero(xp=1)}]},
        "SQLS[2].id: 8 is also the key of SQLS[0]",
    ),
]

BAD_INPUTS = [*NOT_JSON, *NOT_AN_OBJECT, *FIELDS, *IDEMPOTENCY_KEYS, *IDS, *ROWS]
