"""Which candidates are timed together: on one Redis, and on a cluster beside one Redis."""

import contextlib
from collections.abc import Iterator, Sequence

from bench.candidates.candidate import Candidate, Environment
from bench.candidates.course_template import Kept, Template
from bench.candidates.dogpile_cache import Dogpile
from bench.candidates.ours import Ours, OursByDataApi
from bench.candidates.raw_drivers import Raw, RawCluster, encode, plain_key
from bench.measurements.interleaved import Seeded
from chalicelib.cache.keys import BUCKETS

CONNECTION, DATA_API = "mysql", "dataapi, local"
ONE_NODE, CLUSTER = "ours", "ours x3"
RAW_ONE_NODE, RAW_TAGGED, RAW_PLAIN = "raw", "raw x3, tags", "raw x3"


@contextlib.contextmanager
def one_node_candidates(
    environment: Environment, seeded: Seeded, has_template: bool = True
) -> Iterator[list[Candidate]]:
    encoded = {i: encode(row) for i, row in seeded.rows.items()}
    candidates: list[Candidate] = [
        Ours(environment),
        Raw(environment, encoded),
        Dogpile(environment),
    ]
    if has_template:
        candidates += [Kept(environment), Template(environment)]
    with closing(candidates):
        yield candidates


@contextlib.contextmanager
def engine_candidates(connection: Environment, data_api: Environment) -> Iterator[list[Candidate]]:
    """Ours over a connection, and over the RDS Data API that plays the service's part here."""
    candidates: list[Candidate] = [Ours(connection, CONNECTION), OursByDataApi(data_api, DATA_API)]
    with closing(candidates):
        yield candidates


@contextlib.contextmanager
def cluster_candidates(
    one_node: Environment, cluster: Environment, seeded: Seeded
) -> Iterator[list[Candidate]]:
    """redis-py's cluster client takes part twice: with the 16 hash tags of our Redis keys, and with
    plain keys, where nearly every key has a slot of its own."""
    encoded = {i: encode(row) for i, row in seeded.rows.items()}
    candidates: list[Candidate] = [
        Ours(one_node, ONE_NODE),
        Ours(cluster, CLUSTER),
        Raw(one_node, encoded, RAW_ONE_NODE),
        RawCluster(cluster, encoded, RAW_TAGGED, _tagged_key),
        RawCluster(cluster, encoded, RAW_PLAIN, plain_key),
    ]
    with closing(candidates):
        yield candidates


@contextlib.contextmanager
def closing(candidates: Sequence[Candidate]) -> Iterator[None]:
    try:
        yield
    finally:
        for candidate in candidates:
            candidate.close()


def _tagged_key(i: int) -> str:
    return f"{{raw.{i % BUCKETS}}}:{i}"
