"""The types of columns: which values a column takes, how long they are, and how JSON shows them.

They are the same in the API, in CSV files and in the cache."""

import json.encoder
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, cast

from chalicelib.error_text import shown

_INTEGER_TEXT = re.compile(r"0|-?[1-9][0-9]{0,18}")
# With a plus, or zeros in front.
_INTEGER_TEXT_WITH_MORE = re.compile(r"[+-]?[0-9]{1,19}")
_INTEGER_TEXTS = re.compile(r"(?:(?:0|-?[1-9][0-9]{0,18})\n)*")

# Encodes one string, with its quotes, in C. Characters outside ASCII stay as they are.
quote = json.encoder.encode_basestring


class InvalidValue(ValueError):
    """A value that its column does not take. The text says what was expected and what came."""


@dataclass(frozen=True)
class Integer:
    """A JSON integer, or a string of one, from `minimum` to `maximum`, both included. `digits`: the
    width, where it must not follow from these two."""

    minimum: int
    maximum: int
    digits: int = field(default=0, compare=False)
    noun: ClassVar[str] = "an integer"
    # The SQL of a value that may replace NULL.
    empty: ClassVar[str] = "0"

    @cached_property
    def width(self) -> int:
        """The most characters that a value needs. Redis keys have their integers padded to it."""
        return self.digits or max(len(str(self.minimum)), len(str(self.maximum)))

    @property
    def max_bytes(self) -> int:
        return self.width

    def parse(self, value: object) -> int:
        number = value
        if type(value) is str and _INTEGER_TEXT.fullmatch(value):
            number = int(value)
        if type(number) is not int:
            raise InvalidValue(f"expected an integer, got {shown(value)}{_hint(value)}")
        if not self.minimum <= number <= self.maximum:
            raise InvalidValue(
                f"expected an integer from {self.minimum} to {self.maximum}, got {shown(number)}"
            )
        return number

    def read(self, text: str) -> int:
        """The value that `str` made this text of, also one that `parse` does not take: the database
        may hold it. Raises ValueError."""
        return int(text)

    def order(self, value: Any) -> int:
        """Sorts values as the database does."""
        return cast(int, value)

    def parse_all(self, texts: Sequence[str]) -> Sequence[int]:
        """The values of texts that `takes_texts` takes."""
        return list(map(int, texts))

    def takes_all(self, values: Sequence[object]) -> bool:
        """Whether all `values` are good as they are, so that `parse` need not be called."""
        if set(map(type, values)) != {int}:
            return False
        return self.minimum <= min(values) and max(values) <= self.maximum  # type: ignore[type-var, operator]

    def encode_all(self, values: Sequence[Any]) -> Iterable[object]:
        """The values as JSON shows them. Raises TypeError where one is no integer. A boolean is no
        integer."""
        if set(map(type, values)) != {int}:
            raise TypeError
        return values

    def takes_texts(self, texts: Sequence[str]) -> bool:
        """Whether `parse` would take all these texts. Fast: the loops run in C."""
        joined = "\n".join(texts) + "\n"
        if joined.count("\n") != len(texts) or not _INTEGER_TEXTS.fullmatch(joined):
            return False
        if self.minimum < -self.maximum and max(map(len, texts)) < len(str(self.maximum)):
            return True
        numbers = list(map(int, texts))
        return self.minimum <= min(numbers) and max(numbers) <= self.maximum


@dataclass(frozen=True)
class String:
    """Unicode text of at most `max_characters` code points, as MySQL counts them.

    It takes no NUL, which no client shows, and no half of a surrogate pair, which UTF-8 cannot
    hold. A key is not empty and has no white space around it, because MySQL compares 'a' and 'a '
    as equal. `outside`: a regular expression of one character that the column's character set
    lacks; empty where it lacks none. `is_padded`: whether the column's collation compares texts as
    if blanks followed the shorter one (PAD SPACE)."""

    max_characters: int = 255
    is_key: bool = False
    outside: str = ""
    is_padded: bool = field(default=True, compare=False)
    noun: ClassVar[str] = "a string"
    empty: ClassVar[str] = "''"

    @property
    def max_bytes(self) -> int:
        """In UTF-8."""
        return 4 * self.max_characters

    def parse(self, value: object) -> str:
        if type(value) is not str:
            raise InvalidValue(f"expected a string, got {shown(value)}")
        if len(value) > self.max_characters:
            raise InvalidValue(
                f"expected at most {self.max_characters} characters, got {len(value)}"
            )
        if "\0" in value:
            raise InvalidValue("a string cannot hold a NUL character")
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise InvalidValue("a string cannot hold half of a surrogate pair") from error
            if self.outside and (found := re.search(self.outside, value)):
                raise InvalidValue(f"the column's character set does not have {found[0]!r}")
        if self.is_key and (not value or value != value.strip()):
            raise InvalidValue(
                f"a key is not empty and has no white space around it, got {shown(value)}"
            )
        return value

    def read(self, text: str) -> str:
        """As `Integer.read`."""
        return text

    def order(self, value: Any) -> str:
        """Sorts values as the database does. Only control characters come before a blank."""
        text = cast(str, value)
        return text.ljust(self.max_characters) if self.is_padded else text

    def parse_all(self, texts: Sequence[str]) -> Sequence[str]:
        return texts

    def takes_all(self, values: Sequence[object]) -> bool:
        """As `Integer.takes_all`. Fast: the loops run in C."""
        if set(map(type, values)) != {str}:
            return False
        texts = cast(Sequence[str], values)
        return self.takes_texts(texts) and _is_unicode("".join(texts))

    def encode_all(self, values: Sequence[Any]) -> Iterable[object]:
        """The values as JSON shows them, made one by one. Raises TypeError at one that is no
        string."""
        return map(quote, values)

    def takes_texts(self, texts: Sequence[str]) -> bool:
        """Whether `parse` would take all these texts, which came from UTF-8. Fast: the loops run in
        C."""
        if max(map(len, texts)) > self.max_characters or "\0" in "".join(texts):
            return False
        if self.outside and re.search(self.outside, "".join(texts)):
            return False
        return not self.is_key or ("" not in texts and list(map(str.strip, texts)) == list(texts))


UNSIGNED_KEY = Integer(1, 2**32 - 1)
INTEGER = Integer(-(2**31), 2**31 - 1)
STRING = String()
STRING_KEY = String(is_key=True)


def _is_unicode(text: str) -> bool:
    """Whether it holds no half of a surrogate pair."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def _hint(value: object) -> str:
    """What to do about a text that is nearly an integer."""
    if type(value) is not str:
        return ""
    if value != value.strip():
        return ": there is white space around it"
    return f": write {int(value)}" if _INTEGER_TEXT_WITH_MORE.fullmatch(value) else ""
