"""Files of networks: which format one has, the sets in it, and each network with its line.

Formats: hiera (`abuse_networks: {set: {context: […], networks: […], comment}}`), requestctl (`cidrs: […]`, the file's
name is the set's), netmapper (`{"set": ["cidr", …]}`), each in YAML or JSON; plain text, a network a line; and the
definitions of nftables (`define NAME = { … }`) and ferm (`@def $NAME = ( … );`).
How it fails: an entry that can't be read is a Bad with its line, and is skipped; a file of which nothing can be read
is Broken, with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from mailgate.core import networks
from mailgate.core.envelope import printable
from mailgate.core.located import Broken, Pairs, Tree, Word, from_json
from mailgate.core.networks import NetworkSet, Span

MAX_OCTETS = 256 * 2**20  # of a file
MAX_ENTRIES = 4_000_000  # of all files together
MAX_SETS = 1000  # of all files together: each is a label of metrics
_MAX_TEXT = 200  # characters of a name or a comment

# What the set is defined as goes on to the closing bracket, over as many lines as it takes.
_DEFINITION = re.compile(r"^[ \t]*(?:define[ \t]+|@def[ \t]+\$)([\w.-]+)\s*=\s*", re.MULTILINE)
_COMMENT = re.compile(r"(?:#|;|//)")
_EXPIRES = re.compile(r"\s*expires=(\S*)")
_SHAPES = "abuse_networks: {SET: {networks: […]}}, cidrs: […], or SET: […]"


class Entry(NamedTuple):
    """A network in a set. `expires`: seconds since the epoch, 0 for never."""

    of: NetworkSet
    span: Span
    line: int
    expires: int
    comment: str


class Bad(NamedTuple):
    """What was skipped, where, and why."""

    line: int
    problem: str


class _Item(NamedTuple):
    text: str
    line: int
    expires: str = ""
    comment: str = ""


_Found = NetworkSet | _Item | Bad


def read(file: str, text: str, tree: Tree | None = None) -> Iterator[NetworkSet | Entry | Bad]:
    """What stands in `file`: each set, and behind it what is in it. `tree` is what its YAML says, None if it is none.
    Raises Broken, at once or at the end.
    """
    of: NetworkSet | None = None
    good, first_bad = 0, None
    for found in _found(file, text, tree):
        said: NetworkSet | Entry | Bad
        if isinstance(found, _Item):
            assert of is not None
            said = _entry(of, found)
        else:
            said = found
        if isinstance(said, NetworkSet):
            of = said
        elif isinstance(said, Entry):
            good += 1
        else:
            first_bad = first_bad or said
        yield said
    if first_bad and not good:
        raise Broken(f"there is no network in it: line {first_bad.line}: {first_bad.problem}")


def _found(file: str, text: str, tree: Tree | None) -> Iterator[_Found]:
    if "\0" in text:
        raise Broken("is no text")
    if tree is None and text.lstrip("\ufeff \t\r\n")[:1] == "{":
        tree = from_json(text)
    if tree is not None:
        return _of_tree(file, tree)
    return _defined(file, text) if _DEFINITION.search(text) else _plain(file, text)


def _stem(file: str) -> str:
    last = file.rpartition("/")[2]
    return last.rpartition(".")[0] or last


def _entry(of: NetworkSet, item: _Item) -> Entry | Bad:
    try:
        expires = networks.moment(item.expires) if item.expires else 0
        return Entry(of, networks.span(item.text), item.line, expires, item.comment)
    except ValueError as error:
        return Bad(item.line, printable(str(error))[:_MAX_TEXT])


def _set(file: str, name: str, contexts: tuple[str, ...] | None = None, comment: str = "") -> NetworkSet:
    return NetworkSet(printable(name)[:_MAX_TEXT], contexts, printable(comment)[:_MAX_TEXT], file)


# text


def _plain(file: str, text: str) -> Iterator[_Found]:
    yield _set(file, _stem(file))
    for number, line in enumerate(text.lstrip("\ufeff").split("\n"), 1):
        said = _COMMENT.search(line)
        before = (line[: said.start()] if said else line).strip()
        if not before:
            continue
        comment = printable(line[said.end() :].strip())[:_MAX_TEXT] if said else ""
        network, _, options = before.partition(" ")
        if options.lstrip().startswith("-") or network.endswith("-"):  # a range with blanks around its dash
            low, _, rest = before.partition("-")
            high, _, options = rest.strip().partition(" ")
            network = f"{low.strip()}-{high}"
        expires = _EXPIRES.fullmatch(options)
        if options.strip() and not expires:
            yield Bad(number, f"{printable(options.strip()[:80])} is nothing that may stand behind a network")
            continue
        yield _Item(network, number, expires[1] if expires else "", comment)


def _defined(file: str, text: str) -> Iterator[_Found]:
    for definition in _DEFINITION.finditer(text):
        yield _set(file, definition[1])
        line = text.count("\n", 0, definition.end()) + 1
        opening = text[definition.end() : definition.end() + 1]
        closing = {"{": "}", "(": ")"}.get(opening)
        end = text.find(closing, definition.end()) if closing else text.find("\n", definition.end())
        if closing and end < 0:
            raise Broken(f"line {line}: the {closing} is missing that ends {printable(definition[1])}")
        inner = text[definition.end() + bool(closing) : end if end >= 0 else len(text)]
        for number, part in enumerate(inner.split("\n"), line):
            for word in part.partition("#")[0].replace(",", " ").replace(";", " ").split():
                yield _Item(word, number)


# YAML and JSON


def _of_tree(file: str, tree: Tree) -> Iterator[_Found]:
    if not isinstance(tree, Pairs):
        raise Broken(f"is no list of networks: it holds none of {_SHAPES}")
    top = tree.once()
    if "abuse_networks" in top:
        sets = top["abuse_networks"]
        if not isinstance(sets, Pairs):
            raise Broken("abuse_networks holds no sets")
        return _of_sets(file, sets)
    if "cidrs" in top:
        return _of_sets(file, Pairs([(Word(_stem(file), 1), tree)]))
    if any(not isinstance(value, list) or isinstance(value, Pairs) for value in top.values()):
        raise Broken(f"is no list of networks: it holds none of {_SHAPES}")
    return _of_sets(file, tree)


def _of_sets(file: str, sets: Pairs) -> Iterator[_Found]:
    sets.once()
    for name, value in sets:
        yield from _of_set(file, name, value)


def _of_set(file: str, name: Word, value: Tree) -> Iterator[_Found]:
    said = value.once() if isinstance(value, Pairs) else {"networks": value}
    listed = said.get("networks", said.get("cidrs"))
    if not isinstance(listed, list) or isinstance(listed, Pairs):
        yield Bad(name.line, f"{printable(name)} has no list of networks")
        return
    contexts = said.get("context")
    yield _set(file, name, None if contexts is None else _words(contexts), _word(said.get("comment")))
    expires = _word(said.get("expires"))
    for one in listed:
        yield _of_item(one, name.line, expires)


def _of_item(one: Tree, line: int, expires: str) -> _Item | Bad:
    if isinstance(one, Word):
        return _Item(one, one.line or line, expires)
    if isinstance(one, Pairs):
        said = one.once()
        network = said.get("network", said.get("cidr"))
        if isinstance(network, Word):
            comment = printable(_word(said.get("comment")))[:_MAX_TEXT]
            return _Item(network, network.line, _word(said.get("expires")) or expires, comment)
        line = one[0][0].line if one else line
    return Bad(line, "neither a network nor {network: …, expires: …, comment: …}")


def _word(tree: Tree | None) -> str:
    return str(tree) if isinstance(tree, Word) else ""


def _words(tree: Tree) -> tuple[str, ...]:
    return tuple(map(_word, tree)) if isinstance(tree, list) else (_word(tree),)
