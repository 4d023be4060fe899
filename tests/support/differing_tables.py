"""A database of a test's own, whose tables it may change, and what the service says of them."""

import re
from typing import Any

from tests.support.client import ROOT, Answer
from tests.support.leaks import assert_tells_nothing_internal
from tests.support.witness import Witness

OTHER = "differing"
# As an older script made it.
SUPERHEROES = (
    "CREATE TABLE superheroes (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, hero VARCHAR(20) NULL,"
    " power VARCHAR(20) NULL, name VARCHAR(20) NULL, xp INT UNSIGNED, color VARCHAR(20) NULL)"
)


class Tables:
    """Of the database that the service uses now."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        return self._witness.query(sql)

    @property
    def is_mariadb(self) -> bool:
        [(version,)] = self.query("SELECT VERSION()")
        return "MariaDB" in version

    def mend(self, text: str) -> None:
        """Run the statements that a text recommends, up to what the service is to be sent."""
        for statement in text.partition("; then send ")[0].split("; "):
            self.query(statement)

    def apply_schema(self) -> None:
        script = (ROOT / "seed" / "schema.sql").read_text(encoding="utf-8")
        for statement in re.sub(r"--.*", "", script).split(";"):
            if statement.strip():
                self.query(statement)

    def give_cache(self) -> None:
        """As an earlier start of the service would have done."""
        self._witness.give_cache_to(self._witness.server)


def assert_mismatch(answer: Answer, *words: str) -> str:
    """The statement that mends it, where the answer has one."""
    assert (answer.status, answer.error) == (500, "SchemaMismatch"), answer.text
    for word in words:
        assert word in answer.message
    assert_tells_nothing_internal(answer)
    return answer.message.partition(": ")[2]
