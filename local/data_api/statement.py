"""One SQL statement with named parameters, in the grammar of MySQL."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from local.data_api.errors import database_error, invalid

TOKEN = re.compile(
    r"""
      (?P<quoted>
          '[^'\\]*(?:(?:\\.|'')[^'\\]*)*'
        | "[^"\\]*(?:(?:\\.|"")[^"\\]*)*"
        | `[^`]*(?:``[^`]*)*`
      )
    | (?P<comment> /\*.*?\*/ | --(?=\s|$)[^\n]* | \#[^\n]* )
    | (?P<parameter> (?<!:):[A-Za-z0-9_]+ )
    | (?P<end> ; )
    | (?P<word> [A-Za-z_]\w* )
    | (?P<space> \s+ )
    | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL,
)
# Their bodies may hold statements. Whether the service tells them from multistatements is not
# documented.
STORED = {"TRIGGER", "PROCEDURE", "FUNCTION", "EVENT"}
DATA_CHANGES = {"INSERT", "REPLACE", "UPDATE", "DELETE"}
QUERIES = {"SELECT", "WITH", "VALUES", "TABLE"}
TRANSACTION_CONTROL = {"BEGIN", "START", "COMMIT", "ROLLBACK"}


@dataclass(frozen=True)
class Statement:
    """`pieces` is SQL text; at each odd place stands the name of a parameter."""

    pieces: tuple[str, ...]
    # Upper case, without what is quoted.
    words: tuple[str, ...]
    ends_with_semicolon: bool

    @property
    def names(self) -> set[str]:
        """The names of its parameters."""
        return set(self.pieces[1::2])

    @property
    def is_query(self) -> bool:
        """Whether it is a SELECT in one of its forms."""
        return bool(self.words) and self.words[0] in QUERIES

    @property
    def changes_data(self) -> bool:
        """Whether it is DML."""
        return bool(self.words) and self.words[0] in DATA_CHANGES

    def refuse_what_aurora_lacks(self) -> None:
        """Raises ServiceError for RETURNING, which MariaDB has and MySQL has not; and for COMMIT
        and its like, which have operations of their own: what the service does with them is not
        documented. A savepoint is allowed."""
        if self.changes_data and "RETURNING" in self.words:
            message = "You have an error in your SQL syntax near 'RETURNING'"
            raise database_error(message, 1064, "42000")
        if self.words and self.words[0] in TRANSACTION_CONTROL and "TO" not in self.words:
            raise invalid(f"{self.words[0]} isn't supported: use the operation for it")

    def with_literals(self, literals: Mapping[str, str]) -> str:
        """The SQL text with each parameter replaced. Raises ServiceError where names and
        parameters do not match. "Cannot find parameter" is what Serverless v1 said; whether the
        service minds a parameter that the statement does not name is not documented."""
        for name in sorted(self.names - set(literals)):
            raise invalid(f"Cannot find parameter: {name}")
        for name in sorted(set(literals) - self.names):
            raise invalid(f"The statement has no parameter: {name}")
        texts = [literals[each] if i % 2 else each for i, each in enumerate(self.pieces)]
        return "".join(texts)


def parse(sql: str) -> Statement:
    """Raises ServiceError for more than one statement, and for none."""
    tokens = [(match.lastgroup or "", match.group()) for match in TOKEN.finditer(sql)]
    kinds = [kind for kind, _ in tokens if kind not in ("space", "comment")]
    words = tuple(text.upper() for kind, text in tokens if kind == "word")
    if not kinds:
        raise invalid("The SQL statement is empty")
    ends = "end" in kinds
    if ends and kinds.index("end") < len(kinds) - 1 and not is_stored(words):
        raise invalid("Multistatements aren't supported.")
    return Statement(tuple(pieces_of(tokens)), words, ends)


def pieces_of(tokens: Iterable[tuple[str, str]]) -> list[str]:
    pieces = [""]
    for kind, text in tokens:
        if kind == "parameter":
            pieces += [text[1:], ""]
        else:
            pieces[-1] += text
    return pieces


def is_stored(words: tuple[str, ...]) -> bool:
    return words[:1] == ("CREATE",) and bool(STORED & set(words[:12]))
