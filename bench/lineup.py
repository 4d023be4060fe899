"""Who is timed against whom: on one Redis, and a cluster against one."""

import contextlib
from collections.abc import Iterator, Sequence

from bench.contenders import Contender, Environment, Ours
from bench.dogpile import Dogpile
from bench.measure import Seeded
from bench.raw import Raw, RawCluster, encode, plain_key
from bench.template import Kept, Template
from chalicelib.cache.keys import BUCKETS

ONE_NODE, CLUSTER = "ours", "ours x3"
RAW_ONE_NODE, RAW_TAGGED, RAW_PLAIN = "raw", "raw x3, tags", "raw x3"


@contextlib.contextmanager
def contending(
    environment: Environment, seeded: Seeded, has_template: bool = True
) -> Iterator[list[Contender]]:
    encoded = {i: encode(row) for i, row in seeded.rows.items()}
    contenders: list[Contender] = [
        Ours(environment),
        Raw(environment, encoded),
        Dogpile(environment),
    ]
    if has_template:
        contenders += [Kept(environment), Template(environment)]
    with closing(contenders):
        yield contenders


@contextlib.contextmanager
def clustered(
    one_node: Environment, cluster: Environment, seeded: Seeded
) -> Iterator[list[Contender]]:
    """redis-py's cluster client twice: with the 16 hash tags that our keys have, and without, where
    nearly every key has a slot of its own."""
    encoded = {i: encode(row) for i, row in seeded.rows.items()}
    contenders: list[Contender] = [
        Ours(one_node, ONE_NODE),
        Ours(cluster, CLUSTER),
        Raw(one_node, encoded, RAW_ONE_NODE),
        RawCluster(cluster, encoded, RAW_TAGGED, _tagged_key),
        RawCluster(cluster, encoded, RAW_PLAIN, plain_key),
    ]
    with closing(contenders):
        yield contenders


@contextlib.contextmanager
def closing(contenders: Sequence[Contender]) -> Iterator[None]:
    try:
        yield
    finally:
        for contender in contenders:
            contender.close()


def _tagged_key(i: int) -> str:
    return f"{{raw.{i % BUCKETS}}}:{i}"
