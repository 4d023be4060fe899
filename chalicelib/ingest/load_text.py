"""Rows as the text that LOAD DATA reads by default: a line each, tabs between values.

`db` hands it to the server.
"""

from collections.abc import Iterable, Iterator, Sequence

_ESCAPES = {ord("\\"): "\\\\", ord("\t"): "\\t", ord("\n"): "\\n"}

Batch = Sequence[Sequence[str]]
"""Rows of one file, each with as many texts."""


def packed(batches: Iterable[Batch]) -> Iterator[bytes]:
    """A piece for each batch of rows, in UTF-8."""
    for batch in batches:
        text = "\n".join(map("\t".join, batch)) + "\n"
        if not _is_plain(text, batch):
            text = "".join(["\t".join(map(_escaped, row)) + "\n" for row in batch])
        yield text.encode()


def _is_plain(text: str, batch: Batch) -> bool:
    """Whether no value holds what would have to be escaped."""
    return (
        "\\" not in text
        and text.count("\n") == len(batch)
        and text.count("\t") == len(batch) * (len(batch[0]) - 1)
    )


def _escaped(value: str) -> str:
    return value.translate(_ESCAPES)
