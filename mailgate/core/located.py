"""What YAML and JSON say, with the line of each word, so that a mistake can be shown to whoever made it.

How it fails: text that is no JSON is Broken, with the line and the reason.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Iterator
from typing import Any, Self

from mailgate.core.envelope import printable

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


class Broken(Exception):
    """The file as a whole can't be used; the text says why."""


class Word(str):
    """A scalar, and the line on which it stands."""

    __slots__ = ("line",)
    line: int

    def __new__(cls, text: str, line: int) -> Self:
        """The text as it is meant, not as it is quoted."""
        made = super().__new__(cls, text)
        made.line = line
        return made


class _Bare(str):
    """A number as it is written: no string of the text, so it has no line."""

    __slots__ = ()


class Pairs(list[tuple[Word, Any]]):
    """A mapping in the order of the file, with what is said twice."""

    def once(self) -> dict[str, Any]:
        """As a mapping. Raises Broken where a name is there twice: which of the two is meant?"""
        made: dict[str, Any] = {}
        for name, value in self:
            if name in made:
                raise Broken(f"line {name.line}: {printable(name)} is there twice")
            made[name] = value
        return made


Tree = Word | list[Any]


def from_json(text: str) -> Tree:
    """What the JSON says. Raises Broken."""
    try:
        tree = json.loads(
            text.removeprefix("\ufeff"),
            object_pairs_hook=Pairs,
            parse_int=_Bare,
            parse_float=_Bare,
            parse_constant=_Bare,
        )
        # JSON's own reader tells no lines; but its strings come in the order in which they stand in the text.
        ends = [found.start() for found in re.finditer("\n", text)]
        lines = (bisect_left(ends, found.start()) + 1 for found in _STRING.finditer(text))
        return _located(tree, lines)
    except json.JSONDecodeError as error:
        raise Broken(f"line {error.lineno}: is no JSON: {error.msg}") from None
    except RecursionError:
        raise Broken("is no list of networks: it is too deep") from None


def _located(tree: Any, lines: Iterator[int]) -> Tree:
    if isinstance(tree, Pairs):
        return Pairs((Word(key, next(lines)), _located(value, lines)) for key, value in tree)
    if isinstance(tree, list):
        return [_located(value, lines) for value in tree]
    if isinstance(tree, str):
        return Word(tree, 0 if isinstance(tree, _Bare) else next(lines))
    return Word(json.dumps(tree), 0)  # null, true, false
