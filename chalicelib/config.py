"""Settings: the environment, read once when the first request needs it, checked, frozen.

Names and defaults stand here and nowhere else in the code.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from chalicelib.errors import ConfigurationError

DB_HOST = "DB_HOST"
DB_PORT = "DB_PORT"
DB_USER = "DB_USER"
DB_PASS = "DB_PASS"
DB_NAME = "DB_NAME"
DB_READER_HOST = "DB_READER_HOST"
DB_TABLE = "DB_TABLE"
REDIS_URL = "REDIS_URL"
REDIS_CLUSTER = "REDIS_CLUSTER"
TTL = "TTL"
READ_BY = "READ_BY"
UPLOAD_BUCKET = "UPLOAD_BUCKET"
INGEST_MAX_REJECTED = "INGEST_MAX_REJECTED"

REDIS_OPTIONS = {
    "redis": set[str](),
    "rediss": {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname"},
}
"""Schemes of REDIS_URL, and what may stand behind its question mark."""


@dataclass(frozen=True)
class Settings:
    """What a deployment chooses. Secrets are kept out of the repr, so that no log shows them."""

    db_host: str
    db_user: str
    db_pass: str = field(repr=False)
    db_name: str
    db_port: int = 3306
    db_reader_host: str = ""
    default_table: str = "heroes"
    redis_url: str = field(default="", repr=False)
    redis_cluster: bool = False
    ttl_seconds: int = 3600
    read_by: str | None = None
    upload_bucket: str = ""
    max_refused_percent: int = 10

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """Raises ConfigurationError naming the first setting that is missing or malformed."""
        return cls(
            db_host=_required(environment, DB_HOST),
            db_user=_required(environment, DB_USER),
            db_pass=_required(environment, DB_PASS),
            db_name=_required(environment, DB_NAME),
            db_port=_integer(environment, DB_PORT, cls.db_port, 1, 65535),
            db_reader_host=environment.get(DB_READER_HOST, ""),
            default_table=environment.get(DB_TABLE) or cls.default_table,
            redis_url=_redis_url(environment),
            redis_cluster=_switch(environment, REDIS_CLUSTER),
            ttl_seconds=_integer(environment, TTL, cls.ttl_seconds, 1, 30 * 24 * 3600),
            read_by=environment.get(READ_BY) or None,
            upload_bucket=environment.get(UPLOAD_BUCKET, ""),
            max_refused_percent=_integer(
                environment, INGEST_MAX_REJECTED, cls.max_refused_percent, 0, 100
            ),
        )


def _required(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name)
    if not value:
        raise ConfigurationError(
            f"{name} is not set: give it in .chalice/config.json or .local/env"
        )
    return value


def _integer(
    environment: Mapping[str, str], name: str, default: int, minimum: int, maximum: int
) -> int:
    text = environment.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and minimum <= int(text[:12]) <= maximum):
        raise ConfigurationError(f"{name}: expected an integer from {minimum} to {maximum}")
    return int(text)


def _switch(environment: Mapping[str, str], name: str) -> bool:
    text = environment.get(name) or "0"
    if text not in ("0", "1"):
        raise ConfigurationError(f"{name}: expected 1 or 0")
    return text == "1"


def _redis_url(environment: Mapping[str, str]) -> str:
    """The URL as given; empty means no cache. The text of an error never shows it: it may hold a
    password."""
    url = environment.get(REDIS_URL, "")
    if not url:
        return ""
    try:
        parts = urlsplit(url)
        options = REDIS_OPTIONS.get(url.partition(":")[0])
        valid = options is not None and bool(parts.hostname) and parts.port != 0
        valid = valid and (not parts.path.strip("/") or parts.path.strip("/").isdigit())
        valid = valid and parse_qs(parts.query, keep_blank_values=True).keys() <= (options or set())
    except ValueError:
        valid = False
    if not valid:
        raise ConfigurationError(
            f"{REDIS_URL}: expected redis://[user:password@]host[:port][/number], "
            "rediss:// for TLS (then ?ssl_ca_certs=/file too), or nothing for no cache"
        )
    return url
