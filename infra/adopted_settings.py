"""The settings of a stage on pieces that exist already: infra/<stage>.env, a line NAME=value each.

`make adopt` asks for them in a terminal and writes the file. The file may hold a password: only its
owner may read it, and git does not keep it.
"""

import getpass
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from infra.stage_files import ROOT, Json
from infra.terminal import Refused, say

Settings = dict[str, str]

# They stay in this file: `make deploy` reads them from it, and nothing copies them to another one.
SECRETS = ("DB_PASS", "REDIS_URL")
# What each of these other settings of the service does stands in README. A line sets it.
FURTHER = (
    *("DB_PORT", "DB_SSL_CA", "DB_RESUME_SECONDS", "DB_READER_HOST", "UNCACHED_READS"),
    *(
        "EMPLOYEES_TABLE",
        "REDIS_CLUSTER",
        "REDIS_SERVERLESS",
        "TTL",
        "RANGES_BUCKET",
        "BUCKET_OWNER",
    ),
    *("INGEST_MAX_REJECTED", "INGEST_MAX_BYTES", "INGEST_COLUMNS", "SYNC_MINUTES"),
    *("API_READERS", "CORS_ORIGINS"),
)
_SECRET_ARN = r"arn:aws[\w-]*:secretsmanager:[\w-]+:\d{12}:secret:\S+"
_ROLE = r"arn:aws[\w-]*:iam::\d{12}:role/[\w+=,.@/-]+|[\w+=,.@-]{1,64}"


class Piece(NamedTuple):
    """A setting that is asked for. `expected`: what its value looks like, by `pattern`. `default`:
    what an empty answer means; None where there must be a value."""

    name: str
    question: str
    pattern: str
    expected: str
    default: str | None = ""


PIECES = (
    Piece(
        "DB_HOST",
        "Host of the database, its writer endpoint",
        r"[A-Za-z0-9.-]+",
        "a host name such as class.cluster-abc.us-east-1.rds.amazonaws.com, without mysql:// and"
        " without a port",
        None,
    ),
    Piece("DB_NAME", "Name of the database", r"[^\s/`'\"]{1,64}", "one name", None),
    Piece(
        "DB_SECRET_ARN",
        "ARN of the secret of Secrets Manager with its user and password; empty: type both here",
        _SECRET_ARN,
        "arn:aws:secretsmanager:<region>:<account>:secret:<name>",
    ),
    Piece("DB_USER", "User of the database", r"\S{1,80}", "one name", None),
    Piece("DB_PASS", "The user's password", r".+", "the password", None),
    Piece(
        "DB_TABLE",
        "Table with the columns of heroes; empty: heroes",
        r"[\w$]{1,64}",
        "one name",
        "heroes",
    ),
    Piece("READ_BY", "Column of a read that names none, such as xp; empty: id", r"\w+", "one name"),
    Piece(
        "REDIS_URL",
        "URL of Redis, rediss:// with TLS, redis:// without; empty: no cache",
        r"rediss?://\S+",
        "rediss://[user:password@]host[:port]",
    ),
    Piece(
        "API_AUTH",
        "Who may call: none (everybody who knows the URL), key (an API key) or iam",
        r"none|key|iam",
        "none, key or iam",
        None,
    ),
    Piece(
        "SUBNET_IDS",
        "Subnets for the functions, with commas; empty: outside of every network",
        r"subnet-[0-9a-f]{8,17}(,\s*subnet-[0-9a-f]{8,17})*",
        "subnet-0123456789abcdef0,subnet-…",
    ),
    Piece(
        "SECURITY_GROUP_IDS",
        "Security groups for the functions, with commas; empty with empty subnets",
        r"sg-[0-9a-f]{8,17}(,\s*sg-[0-9a-f]{8,17})*",
        "sg-0123456789abcdef0",
    ),
    Piece(
        "UPLOAD_BUCKET",
        "S3 bucket whose CSV files are loaded; empty: none",
        r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]",
        "the name of a bucket, without s3://",
    ),
    Piece("LAMBDA_ROLE", "Role of the functions, name or ARN", _ROLE, "a name or an ARN", None),
)
_BY_NAME = {piece.name: piece for piece in PIECES}
_OF_SECRET = ("DB_USER", "DB_PASS")


def file_of(stage: str) -> Path:
    """The file with a stage's settings."""
    return ROOT / "infra" / f"{stage}.env"


def collect(stage: str) -> Settings:
    """The settings of a stage, with a value for each of PIECES that may be left out. Asks for those
    that are missing where there is a terminal, and writes the file. Raises Refused, which names
    everything that is missing or malformed."""
    path = file_of(stage)
    name = path.relative_to(ROOT)
    is_new = not path.exists()
    found = read(path)
    if sys.stdin.isatty():
        found = _asked(path, found)
    elif is_new:
        _write(path, found)
    path.chmod(0o600)
    if wrong := problems(found):
        heading = f"{name} was made: fill it in" if is_new else f"{name}, nothing was changed"
        raise Refused(f"{heading}:\n  " + "\n  ".join(wrong))
    if empty := [piece.name for piece in PIECES if _is_open(piece, found)]:
        say("adopt", f"empty in {name}: {', '.join(empty)}")
    defaults = {piece.name: piece.default or "" for piece in PIECES}
    return {name: found.get(name) or defaults.get(name, "") for name in (*defaults, *found)}


def secrets_of(stage: str) -> Settings:
    """The settings that no other file holds. Raises Refused where the file is not there."""
    path = file_of(stage)
    if not path.exists():
        raise Refused(
            f"{path.relative_to(ROOT)} is not there, which git does not keep: run make adopt"
            f" STAGE={stage}"
        )
    found = read(path)
    return {name: found[name] for name in SECRETS if found.get(name)}


def read(path: Path) -> Settings:
    """The lines NAME=value of a file, values without the spaces around them; empty where there is
    no file. Raises Refused for another line that is no comment, and for a second line of a
    setting."""
    found: Settings = {}
    lines: dict[str, int] = {}
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, is_setting, value = line.partition("=")
        if not is_setting:
            raise Refused(f"{path.relative_to(ROOT)}, line {number}: expected NAME=value")
        name = name.strip()
        if name in found:
            raise Refused(
                f"{path.relative_to(ROOT)}, line {number}: {name} stands in line {lines[name]}"
                " already: keep one of them"
            )
        found[name], lines[name] = value.strip(), number
    return found


def _asked(path: Path, found: Settings) -> Settings:
    """`found` with an answer for each piece that has no value: an empty line may be one that nobody
    was asked for, because the questions ended before it or there was no terminal. What was answered
    is kept in the file, also where Ctrl-C ends the questions."""
    answers: Settings = {}
    try:
        for piece in PIECES:
            if _is_open(piece, {**found, **answers}):
                if not answers:
                    say(
                        "adopt", f"asks for what {path.relative_to(ROOT)} lacks; Enter: the default"
                    )
                answers[piece.name] = _ask(piece)
    finally:
        if answers or not path.exists():
            _write(path, {**found, **answers})
    return {**found, **answers}


def _ask(piece: Piece) -> str:
    choice = f" [{piece.default}]" if piece.default else ""
    while True:
        question = f"{piece.question}\n  {piece.name}{choice} = "
        try:
            # A password is not shown while it is typed.
            answer = getpass.getpass(question) if piece.name == "DB_PASS" else input(question)
        except EOFError:
            raise Refused(f"{piece.name} was not given; run make adopt again to go on") from None
        answer = answer.strip() or piece.default or ""
        wrong = _problem(piece.name, answer)
        if wrong is None:
            return answer
        print(f"  {wrong}")


def _write(path: Path, found: Mapping[str, str]) -> None:
    """Writes the file anew: each piece below its question, then the further settings."""
    lines = [
        "# Read by make adopt and make deploy. It may hold a password: git does not keep it.",
        "",
    ]
    for piece in PIECES:
        lines += [f"# {piece.question}", f"{piece.name}={found.get(piece.name, '')}", ""]
    lines += [f"{name}={value}" for name, value in found.items() if name not in _BY_NAME]
    # Nobody else may read it, not even while it is written.
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write("\n".join(lines).rstrip("\n") + "\n")
    unfinished.replace(path)


def problems(found: Settings) -> list[str]:
    """What is wrong with the settings, in their order. It shows no value."""
    ours = [each.name for each in PIECES if not _is_in_secret(each.name, found)]
    texts = {name: _malformed(name, found.get(name, "")) for name in (*ours, *found)}
    answer = _of_the_app({name: value for name, value in found.items() if not texts[name]})
    texts |= answer["rejected"]
    for name in found:
        if name in answer["names"] and not _is_ours(name):
            texts[name] = f"{name}: not for a stage of make adopt"
    several = []
    if bool(found.get("SUBNET_IDS")) != bool(found.get("SECURITY_GROUP_IDS")):
        several.append("SUBNET_IDS and SECURITY_GROUP_IDS: give both, or none of them")
    if found.get("DB_SECRET_ARN") and found.get("DB_PASS"):
        several.append("DB_SECRET_ARN and DB_PASS: give one of them")
    return [text for text in (*texts.values(), *several) if text]


def _problem(name: str, value: str) -> str | None:
    """What is wrong with the value of a setting. It never shows the value, which may be a
    password."""
    wrong = _malformed(name, value)
    return wrong or (_of_the_app({name: value})["rejected"].get(name) if value else None)


def _malformed(name: str, value: str) -> str | None:
    piece = _BY_NAME.get(name)
    if not _is_ours(name):
        return f"{name}: there is no such setting; there are {', '.join((*_BY_NAME, *FURTHER))}"
    if not value:
        is_required = piece is not None and piece.default is None
        return f"{name} is missing: {piece.question}" if piece and is_required else None
    if value[0] == value[-1] and value[0] in "'\"" and len(value) > 1:
        return f"{name}: write the value without quotes"
    if piece is None or re.fullmatch(piece.pattern, value):
        return None
    return f"{name}: expected {piece.expected}"


def _of_the_app(found: Settings) -> Json:
    """What `seed/check_settings.py` reports of settings that are well-formed."""
    done = subprocess.run(
        [sys.executable, "-m", "seed.check_settings"],
        cwd=Path(__file__).parent.parent,
        input=json.dumps({name: value for name, value in found.items() if value}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2]
        raise Refused(f"python -m seed.check_settings failed, which is a bug: {reason}")
    answer: Json = json.loads(done.stdout)
    return answer


def _is_ours(name: str) -> bool:
    return name in _BY_NAME or name in FURTHER


def _is_open(piece: Piece, found: Mapping[str, str]) -> bool:
    """Whether it has no value, and none of the others stands for it."""
    if piece.name == "DB_SECRET_ARN" and found.get("DB_PASS"):
        return False
    return not found.get(piece.name) and not _is_in_secret(piece.name, found)


def _is_in_secret(name: str, found: Mapping[str, str]) -> bool:
    return name in _OF_SECRET and bool(found.get("DB_SECRET_ARN"))
