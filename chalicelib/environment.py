"""Reads one setting of the environment. Each function raises ConfigurationError, which names it."""

from collections.abc import Mapping
from enum import Enum
from typing import TypeVar

from chalicelib.errors import ConfigurationError

Choice = TypeVar("Choice", bound=Enum)


def required(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name)
    if not value:
        raise ConfigurationError(
            f"{name} is not set: give it in .chalice/config.json or .local/env"
        )
    return value


def choice(environment: Mapping[str, str], name: str, kind: type[Choice]) -> Choice:
    """The member of `kind` that the setting names; the first member where it is not set."""
    choices = [member.value for member in kind]
    text = environment.get(name) or choices[0]
    if text not in choices:
        raise ConfigurationError(f"{name}: expected {', '.join(choices[:-1])} or {choices[-1]}")
    return kind(text)


def integer(
    environment: Mapping[str, str], name: str, default: int, minimum: int, maximum: int
) -> int:
    text = environment.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and minimum <= int(text[:12]) <= maximum):
        raise ConfigurationError(f"{name}: expected an integer from {minimum} to {maximum}")
    return int(text)


def switch(environment: Mapping[str, str], name: str) -> bool:
    text = environment.get(name) or "0"
    if text not in ("0", "1"):
        raise ConfigurationError(f"{name}: expected 1 or 0")
    return text == "1"


def names(environment: Mapping[str, str], name: str, noun: str = "column names") -> tuple[str, ...]:
    """The names in a list with commas; empty where the setting is not set."""
    text = environment.get(name, "")
    parts = tuple(part.strip() for part in text.split(",")) if text else ()
    if "" in parts or len({part.casefold() for part in parts}) != len(parts):
        raise ConfigurationError(
            f"{name}: expected {noun} with commas between them, each once, or nothing"
        )
    return parts
