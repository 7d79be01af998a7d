"""YAML with the line of each word: PyYAML's parser without what it makes of types, which no network needs.

How it fails: text that is no YAML is Broken, with the line and the reason. An alias is the very thing that it names,
so none multiplies.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from mailgate.core.located import Broken, Pairs, Tree, Word

# libyaml's where PyYAML has it, as Debian's and its wheels do: ten times faster.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DEEPEST = 20


def read(text: str) -> Tree:
    """What the text says, which is one document. Raises Broken."""
    made: Tree | None = None
    try:
        events = yaml.parse(text, Loader=_LOADER)
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                if made is not None:
                    raise Broken(f"line {event.start_mark.line + 1}: a second document begins: a file may hold one")
                made = _node(next(events), events, {}, 0)
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise Broken(f"{where}is no YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise Broken(f"is no YAML: {error}") from None
    if made is None:
        raise Broken("is empty: there is no word in it")
    return made


def _node(event: Any, events: Iterator[Any], anchors: dict[str, Tree], depth: int) -> Tree:
    line = event.start_mark.line + 1
    if depth > _DEEPEST:
        raise Broken(f"line {line}: is no list of networks: it is too deep")
    if isinstance(event, yaml.AliasEvent):
        if event.anchor not in anchors:
            raise Broken(f"line {line}: *{event.anchor} is not defined before")
        return anchors[event.anchor]
    made: Tree = Word(event.value, line) if isinstance(event, yaml.ScalarEvent) else []
    if isinstance(event, yaml.SequenceStartEvent):
        made = [_node(inner, events, anchors, depth + 1) for inner in _until(yaml.SequenceEndEvent, events)]
    elif isinstance(event, yaml.MappingStartEvent):
        made = Pairs()
        for inner in _until(yaml.MappingEndEvent, events):
            key = _node(inner, events, anchors, depth + 1)
            if not isinstance(key, Word):
                raise Broken(f"line {inner.start_mark.line + 1}: is no list of networks: a name must be a word")
            made.append((key, _node(next(events), events, anchors, depth + 1)))
    if event.anchor:
        anchors[event.anchor] = made
    return made


def _until(end: type[Any], events: Iterator[Any]) -> Iterator[Any]:
    while not isinstance(event := next(events), end):
        yield event
