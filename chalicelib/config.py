"""The settings: read from the environment and checked. They never change after that.

Only this module holds their names, values and defaults.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import parse_qs, urlsplit

from chalicelib.environment import choice, integer, names, required, switch
from chalicelib.errors import ConfigurationError
from chalicelib.tables import OWN_NAMES, TABLES

DB_HOST = "DB_HOST"
DB_PORT = "DB_PORT"
DB_USER = "DB_USER"
DB_PASS = "DB_PASS"
DB_ENGINE = "DB_ENGINE"
DB_CLUSTER_ARN = "DB_CLUSTER_ARN"
DB_SECRET_ARN = "DB_SECRET_ARN"
DB_AUTH = "DB_AUTH"
DB_SSL_CA = "DB_SSL_CA"
DB_RESUME_SECONDS = "DB_RESUME_SECONDS"
DB_NAME = "DB_NAME"
DB_READER_HOST = "DB_READER_HOST"
UNCACHED_READS = "UNCACHED_READS"
DB_TABLE = "DB_TABLE"
EMPLOYEES_TABLE = "EMPLOYEES_TABLE"
REDIS_URL = "REDIS_URL"
REDIS_CLUSTER = "REDIS_CLUSTER"
REDIS_AUTH = "REDIS_AUTH"
REDIS_CACHE_NAME = "REDIS_CACHE_NAME"
REDIS_SERVERLESS = "REDIS_SERVERLESS"
TTL = "TTL"
READ_BY = "READ_BY"
UPLOAD_BUCKET = "UPLOAD_BUCKET"
RANGES_BUCKET = "RANGES_BUCKET"
BUCKET_OWNER = "BUCKET_OWNER"
INGEST_MAX_REJECTED = "INGEST_MAX_REJECTED"
INGEST_MAX_BYTES = "INGEST_MAX_BYTES"
INGEST_ENGINE = "INGEST_ENGINE"
INGEST_COLUMNS = "INGEST_COLUMNS"
SYNC_MINUTES = "SYNC_MINUTES"
API_AUTH = "API_AUTH"
API_READERS = "API_READERS"
CORS_ORIGINS = "CORS_ORIGINS"

# The schemes of REDIS_URL, each with the options that may follow its question mark.
REDIS_OPTIONS = {
    "redis": set[str](),
    "rediss": {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname"},
}
# API Gateway waits 29 s for an answer. The login to the database comes after this wait.
MAX_RESUME_SECONDS = 24
# The most bytes of JSON in one answer. Lambda sends at most 6 MB.
MAX_RESULT_BYTES = 6_000_000
_ORIGIN = re.compile(r"\*|https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
_DEFAULT_PORT = re.compile("http://.*:80|https://.*:443")


class ApiAuth(str, Enum):
    """How API Gateway checks who calls: not at all, by IAM, or by an API key."""

    NONE = "none"
    IAM = "iam"
    KEY = "key"


class DbEngine(str, Enum):
    """How statements reach the database: over a connection, or by the RDS Data API."""

    MYSQL = "mysql"
    DATA_API = "dataapi"


class IngestEngine(str, Enum):
    """Who reads a large uploaded file: the function, or the database (Aurora) itself."""

    MYSQL = "mysql"
    AURORA = "aurora"


class UncachedReads(str, Enum):
    """Who answers a read without the cache. A replica may not have the last writes."""

    WRITER = "writer"
    REPLICA = "replica"


@dataclass(frozen=True)
class Settings:
    """The settings of a deployment. The repr leaves secrets out, so that no log shows them."""

    db_host: str
    db_user: str
    db_pass: str = field(repr=False)
    db_name: str
    db_engine: DbEngine = DbEngine.MYSQL
    db_cluster_arn: str = ""
    db_secret_arn: str = ""
    db_auth: str = ""
    db_ssl_ca: str = ""
    db_resume_seconds: int = 0
    db_port: int = 3306
    db_reader_host: str = ""
    uncached_reads: UncachedReads = UncachedReads.WRITER
    default_table: str = "heroes"
    employees_table: str = "employees"
    redis_url: str = field(default="", repr=False)
    redis_cluster: bool = False
    redis_auth: str = ""
    redis_cache_name: str = ""
    redis_serverless: bool = False
    ttl_seconds: int = 3600
    read_by: str | None = None
    max_rejected_percent: int = 10
    max_upload_bytes: int = 1_000_000_000
    ingest_engine: IngestEngine = IngestEngine.MYSQL
    ingest_columns: tuple[str, ...] = ()
    upload_bucket: str = ""
    ranges_bucket: str = ""
    bucket_owner: str = ""
    sync_minutes: int = 15
    api_auth: ApiAuth = ApiAuth.NONE
    api_readers: frozenset[str] = frozenset()
    cors_origins: frozenset[str] = frozenset()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """Raises ConfigurationError, which names the first setting that is missing or malformed."""
        engine = choice(environment, DB_ENGINE, DbEngine)
        is_connected = engine is DbEngine.MYSQL
        return cls(
            db_host=required(environment, DB_HOST)
            if is_connected
            else environment.get(DB_HOST, ""),
            db_user=_user(environment) if is_connected else environment.get(DB_USER, ""),
            db_pass=_password(environment) if is_connected else environment.get(DB_PASS, ""),
            db_name=required(environment, DB_NAME),
            db_engine=engine,
            db_cluster_arn=_cluster_arn(environment, engine),
            db_secret_arn=_secret_arn(environment),
            db_auth=_iam(environment, DB_AUTH, DB_SSL_CA),
            db_ssl_ca=environment.get(DB_SSL_CA, ""),
            db_resume_seconds=integer(environment, DB_RESUME_SECONDS, 0, 0, MAX_RESUME_SECONDS),
            db_port=integer(environment, DB_PORT, cls.db_port, 1, 65535),
            db_reader_host=environment.get(DB_READER_HOST, ""),
            uncached_reads=_uncached_reads(environment),
            default_table=_table(environment, DB_TABLE) or cls.default_table,
            employees_table=_employees_table(environment) or cls.employees_table,
            redis_url=_redis_url(environment),
            redis_cluster=switch(environment, REDIS_CLUSTER),
            redis_auth=_redis_auth(environment),
            redis_cache_name=environment.get(REDIS_CACHE_NAME, ""),
            redis_serverless=_redis_serverless(environment),
            ttl_seconds=integer(environment, TTL, cls.ttl_seconds, 1, 30 * 24 * 3600),
            read_by=_read_by(environment),
            max_rejected_percent=integer(
                environment, INGEST_MAX_REJECTED, cls.max_rejected_percent, 0, 100
            ),
            max_upload_bytes=integer(
                environment, INGEST_MAX_BYTES, cls.max_upload_bytes, 1, 10**11
            ),
            ingest_engine=choice(environment, INGEST_ENGINE, IngestEngine),
            ingest_columns=names(environment, INGEST_COLUMNS),
            upload_bucket=environment.get(UPLOAD_BUCKET, ""),
            ranges_bucket=_ranges_bucket(environment),
            bucket_owner=_bucket_owner(environment),
            sync_minutes=sync_minutes(environment),
            api_auth=api_auth(environment),
            api_readers=frozenset(names(environment, API_READERS, "ids of callers")),
            cors_origins=cors_origins(environment),
        )


def api_auth(environment: Mapping[str, str]) -> ApiAuth:
    """The setting API_AUTH. It is read when the app is imported, before there are Settings. It is
    never set to nothing: who wants an open API writes `none`."""
    if environment.get(API_AUTH) == "":
        raise ConfigurationError(f"{API_AUTH} is empty: write none (everybody), iam or key")
    return choice(environment, API_AUTH, ApiAuth)


def sync_minutes(environment: Mapping[str, str]) -> int:
    """The setting SYNC_MINUTES, which is read when the app is imported, too."""
    return integer(environment, SYNC_MINUTES, Settings.sync_minutes, 1, 24 * 60)


def cors_origins(environment: Mapping[str, str]) -> frozenset[str]:
    """The origins of web pages as browsers send them, or `*` for every page."""
    origins = [part.strip() for part in environment.get(CORS_ORIGINS, "").split(",")]
    named = frozenset(origin for origin in origins if origin)
    for origin in named:
        if not _ORIGIN.fullmatch(origin):
            raise ConfigurationError(
                f"{CORS_ORIGINS}: expected origins such as https://example.com or"
                " http://localhost:3000, in lower case, without a path, with commas between;"
                " or * for every page"
            )
        if _DEFAULT_PORT.fullmatch(origin):
            raise ConfigurationError(
                f"{CORS_ORIGINS}: browsers leave out the port that a scheme has by default: write"
                f" {origin.rpartition(':')[0]}"
            )
    return named


def _uncached_reads(environment: Mapping[str, str]) -> UncachedReads:
    reader = choice(environment, UNCACHED_READS, UncachedReads)
    if reader is UncachedReads.REPLICA and not environment.get(DB_READER_HOST):
        raise ConfigurationError(f"{UNCACHED_READS}=replica needs {DB_READER_HOST}")
    return reader


def _ranges_bucket(environment: Mapping[str, str]) -> str:
    name = environment.get(RANGES_BUCKET, "")
    if name and name == environment.get(UPLOAD_BUCKET):
        raise ConfigurationError(f"{RANGES_BUCKET}: take another bucket than {UPLOAD_BUCKET}")
    return name


def _bucket_owner(environment: Mapping[str, str]) -> str:
    account = environment.get(BUCKET_OWNER, "")
    if account and not re.fullmatch("[0-9]{12}", account):
        raise ConfigurationError(f"{BUCKET_OWNER}: expected the 12 digits of an AWS account")
    return account


def _read_by(environment: Mapping[str, str]) -> str | None:
    column = environment.get(READ_BY) or None
    known = sorted({name for table in TABLES.values() for name in table.readable})
    if column and column not in known:
        raise ConfigurationError(
            f"{READ_BY}: no table can be read by this column; there are {', '.join(known)}"
        )
    return column


def _user(environment: Mapping[str, str]) -> str:
    if environment.get(DB_SECRET_ARN):
        return environment.get(DB_USER, "")  # the secret has its own
    return required(environment, DB_USER)


def _password(environment: Mapping[str, str]) -> str:
    """The password; empty where the settings choose another way to log in. Raises
    ConfigurationError where they choose two ways, or none."""
    ways = [name for name in (DB_PASS, DB_SECRET_ARN, DB_AUTH) if environment.get(name)]
    if not ways:
        raise ConfigurationError(
            f"{DB_PASS} is not set: give it, or {DB_SECRET_ARN}, or {DB_AUTH}=iam"
        )
    if len(ways) > 1:
        raise ConfigurationError(f"{ways[0]} and {ways[1]} are both set: choose one way to log in")
    return environment.get(DB_PASS, "")


def _employees_table(environment: Mapping[str, str]) -> str:
    """With the name of the database ahead of it, or without."""
    database, dot, name = environment.get(EMPLOYEES_TABLE, "").rpartition(".")
    if dot and database != environment.get(DB_NAME):
        raise ConfigurationError(
            f"{EMPLOYEES_TABLE}: expected a table of the database in {DB_NAME}"
        )
    return _table({EMPLOYEES_TABLE: name}, EMPLOYEES_TABLE)


def _table(environment: Mapping[str, str], setting: str) -> str:
    """The name of the default table; empty where it is not set. The name becomes part of SQL, so it
    has no character that could end a quoted name there."""
    name = environment.get(setting, "")
    if name and not re.fullmatch(r"[0-9A-Za-z_$]{1,64}", name):
        raise ConfigurationError(
            f"{setting}: expected the name of a table: up to 64 letters, digits, _ and $"
        )
    if name.lower() in OWN_NAMES:
        raise ConfigurationError(
            f"{setting}: {name} is a table of the service's own; name one that holds your rows"
        )
    other_case = [table for table in TABLES if table.lower() == name.lower() != name]
    if other_case and name not in TABLES:
        raise ConfigurationError(
            f"{setting}: expected {other_case[0]}, got {name}: some servers take both names for"
            " one table, and the cache does not"
        )
    return name


def _secret_arn(environment: Mapping[str, str]) -> str:
    arn = environment.get(DB_SECRET_ARN, "")
    if arn and not re.fullmatch(r"arn:aws[\w-]*:secretsmanager:[\w-]+:\d{12}:secret:\S+", arn):
        raise ConfigurationError(
            f"{DB_SECRET_ARN}: expected arn:aws:secretsmanager:<region>:<account>:secret:<name>"
        )
    return arn


def _cluster_arn(environment: Mapping[str, str], engine: DbEngine) -> str:
    """Of the Data API, which needs a secret too, and knows no replica."""
    arn = environment.get(DB_CLUSTER_ARN, "")
    if engine is DbEngine.DATA_API:
        required(environment, DB_CLUSTER_ARN)
        required(environment, DB_SECRET_ARN)
    if arn and not re.fullmatch(r"arn:aws[\w-]*:rds:[\w-]+:\d{12}:cluster:[\w-]+", arn):
        raise ConfigurationError(
            f"{DB_CLUSTER_ARN}: expected arn:aws:rds:<region>:<account>:cluster:<name>"
        )
    needs_connection = (
        environment.get(DB_READER_HOST) or environment.get(INGEST_ENGINE) == IngestEngine.AURORA
    )
    if engine is DbEngine.DATA_API and needs_connection:
        raise ConfigurationError(
            f"{DB_ENGINE}={DbEngine.DATA_API.value}: {DB_READER_HOST} and {INGEST_ENGINE}=aurora"
            " need connections to the database; leave them out"
        )
    return arn


def _iam(environment: Mapping[str, str], name: str, needed: str) -> str:
    """The value `iam`, or nothing. `needed`: the setting that `iam` needs."""
    text = environment.get(name, "")
    if text not in ("", "iam"):
        raise ConfigurationError(f"{name}: expected iam or nothing")
    if text and not environment.get(needed):
        raise ConfigurationError(f"{name}=iam needs {needed}")
    return text


def _redis_auth(environment: Mapping[str, str]) -> str:
    text = _iam(environment, REDIS_AUTH, REDIS_CACHE_NAME)
    url = urlsplit(_redis_url(environment))
    if text and (url.scheme != "rediss" or not url.username or url.password):
        raise ConfigurationError(f"{REDIS_AUTH}=iam: {REDIS_URL} must be rediss://user@host:port")
    return text


def _redis_serverless(environment: Mapping[str, str]) -> bool:
    """Also where only the name of the host says so."""
    host = urlsplit(_redis_url(environment)).hostname or ""
    is_named_so = ".serverless." in host and host.endswith(".amazonaws.com")
    return switch(environment, REDIS_SERVERLESS) or is_named_so


def _redis_url(environment: Mapping[str, str]) -> str:
    """The URL as it was given; empty where there is no cache. Errors do not show the URL, because
    it may hold a password."""
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
