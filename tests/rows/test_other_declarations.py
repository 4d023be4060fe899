"""Containers of two versions of the service, which declare a table in different ways: during a
deployment, and after it was taken back."""

import os
from collections.abc import Sequence
from dataclasses import replace

import pytest

from chalicelib.config import Settings
from chalicelib.rows import RowService
from chalicelib.services import Container
from chalicelib.tables import HEROES, NO_KEY, Key, Row, Table
from tests.conftest import Configure
from tests.support.witness import Witness

WITHOUT_LOOKUP = replace(HEROES, lookups=())
WITHOUT_COLUMN = replace(HEROES, columns=HEROES.columns[:-1])
XP = HEROES.readable["xp"]


@pytest.fixture
def version(witness: Witness, configure: Configure) -> "type[Version]":
    configure()
    return Version


class Version:
    """A container whose version declares the table so."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.rows: RowService = Container(Settings.from_environment(os.environ)).rows

    def read(self, name: str, values: Sequence[Key], use_cache: bool = True) -> bytes:
        return self.rows.read(self.table, self.table.readable[name], values, use_cache).json

    def assert_reads_what_is_stored(self, name: str, values: Sequence[Key]) -> None:
        for _ in range(2):
            assert self.read(name, values) == self.read(name, values, use_cache=False)


def a_row(key: Key, xp: int) -> Row:
    return (key, "Tide", "sea", "Marisol", xp, "teal")


@pytest.mark.parametrize("kind", ["insert", "write", "delete", "uncached insert", "replay"])
def test_a_version_with_a_new_lookup_sees_what_the_one_without_it_changes(
    version: type[Version], kind: str
) -> None:
    new, old = version(HEROES), version(WITHOUT_LOOKUP)
    new.rows.write(HEROES, [a_row(1, 5), a_row(2, 5)], True)
    old.assert_reads_what_is_stored("id", [1, 2])
    new.assert_reads_what_is_stored("xp", [5, 6])

    if kind == "insert":
        old.rows.write(old.table, [a_row(NO_KEY, 5)], True)
    elif kind == "uncached insert":
        old.rows.write(old.table, [a_row(NO_KEY, 5)], False)
    elif kind == "write":
        old.rows.write(old.table, [a_row(1, 6)], True)
    elif kind == "delete":
        old.rows.delete(old.table, [1])
    else:
        for _ in range(2):
            old.rows.delete(old.table, [1], "key")

    new.assert_reads_what_is_stored("xp", [5, 6])
    old.assert_reads_what_is_stored("id", [1, 2, 3])


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_new_lookup_shows_what_a_version_without_it_inserts_behind_an_invalidate(
    version: type[Version], use_cache: bool
) -> None:
    new, old = version(HEROES), version(WITHOUT_LOOKUP)
    new.rows.write(HEROES, [a_row(NO_KEY, 5)], True)
    old.rows.invalidate(old.table)  # since then it knows a generation of the other version
    new.assert_reads_what_is_stored("xp", [5])

    old.rows.write(old.table, [a_row(NO_KEY, 5)], use_cache)

    new.assert_reads_what_is_stored("xp", [5])


def test_a_version_with_a_new_column_answers_with_it(version: type[Version]) -> None:
    old, new = version(WITHOUT_COLUMN), version(HEROES)
    new.rows.write(HEROES, [a_row(1, 5)], False)
    old.assert_reads_what_is_stored("id", [1])
    old.assert_reads_what_is_stored("xp", [5])

    new.assert_reads_what_is_stored("id", [1])
    new.assert_reads_what_is_stored("xp", [5])
    old.assert_reads_what_is_stored("id", [1])
