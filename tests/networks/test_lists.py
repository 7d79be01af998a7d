"""Each format of lists from a file, with the line of each entry, and what is wrong with a file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml as libyaml
from hypothesis import given
from hypothesis import strategies as st

from mailgate.core.located import Broken, Pairs, Word, from_json
from mailgate.core.network_lists import MAX_ENTRIES, MAX_OCTETS, MAX_SETS, Bad, Entry, read
from mailgate.core.network_table import Table
from mailgate.core.networks import networks
from mailgate.edge.networks import Sources, files, making, yaml

LISTS = Path(__file__).parent / "lists"


def told(path: Path | str) -> list[tuple[object, ...]]:
    """What stands in a file: its sets, the entries by line, and what is bad."""
    return list(map(_told, files.read(str(LISTS / path))))


def _told(one: object) -> tuple[object, ...]:
    if isinstance(one, Entry):
        return one.line, one.of.name, ", ".join(map(str, networks(one.span)))
    if isinstance(one, Bad):
        return one.line, f"! {one.problem}"
    return one.name, one.contexts, one.comment  # type: ignore[attr-defined]


def test_hiera() -> None:
    assert told("hiera.yaml") == [
        ("blocked_nets", ("ferm", "varnish", "mx"), "All traffic is dropped"),
        (8, "blocked_nets", "192.0.2.0/24"),
        (9, "blocked_nets", "2001:db8:1::/48"),
        (10, "blocked_nets", "198.51.100.0/24"),
        (11, "! 300.1.2.3 is no network"),
        ("bots", ("varnish",), "crawlers"),
        (12, "bots", "203.0.113.0/25"),
        ("firewall", ("ferm",), ""),
        (15, "firewall", "203.0.113.128/25"),
        (15, "firewall", "198.51.100.7/32, 198.51.100.8/31"),
        ("again", ("ferm",), ""),
        (15, "again", "203.0.113.128/25"),
        (15, "again", "198.51.100.7/32, 198.51.100.8/31"),
        ("until", ("mx",), ""),
        (20, "until", "192.0.2.200/32"),
        (21, "! nothing has no list of networks"),
    ]
    until = [one for one in files.read(str(LISTS / "hiera.yaml")) if isinstance(one, Entry) and one.expires]
    assert [(one.expires, one.comment) for one in until] == [(1795514400, "for two days")]


def test_requestctl() -> None:
    assert told("requestctl/scraper.yaml") == [
        ("scraper", None, "scrapes"),
        (1, "scraper", "192.0.2.128/25"),
        (1, "scraper", "10.9.0.0/16"),
    ]
    assert told("requestctl/spider.json") == [("spider", None, "\U0001f577"), (1, "spider", "2001:db8:2::1/128")]


def test_netmapper() -> None:
    assert told("netmapper.json") == [
        ("one", None, ""),
        (1, "one", "10.1.0.0/16"),
        (2, "! not a network is no network"),
        (2, "one", "10.2.3.4/32"),
        ("two", None, ""),
    ]


def test_plain_text() -> None:
    assert told("plain.txt") == [
        ("plain", None, ""),
        (2, "plain", "192.0.2.0/24"),
        (4, "plain", "10.0.0.1/32, 10.0.0.2/31, 10.0.0.4/30, 10.0.0.8/31"),
        (5, "plain", "2001:db8::/32"),
        (6, "plain", "10.0.0.0/24"),
        (7, "! and more is nothing that may stand behind a network"),
        (8, '! tomorrow is no time: write "2026-11-24" or "2026-11-24T10:00:00Z"'),
        (9, "! 0.0.0.0/0 is every address there is"),
        (10, "! fe80::1%eth0 is no network"),
    ]
    entries = [one for one in files.read(str(LISTS / "plain.txt")) if isinstance(one, Entry)]
    assert [one.comment for one in entries] == ["SBL1", "a range", "soon over", ""]
    assert [one.expires for one in entries] == [0, 0, 1795478400, 0]


def test_definitions_of_firewalls() -> None:
    assert told("firewall.nft") == [
        ("BLOCKED", None, ""),
        (5, "BLOCKED", "192.0.2.0/24"),
        (5, "BLOCKED", "10.0.0.1/32"),
        (6, "BLOCKED", "2001:db8::/32"),
        ("ONE", None, ""),
        (8, "ONE", "10.7.7.7/32"),
        ("FERM", None, ""),
        (9, "FERM", "10.8.0.0/16"),
        (10, "FERM", "10.9.0.0/16"),
    ]


@pytest.mark.parametrize(
    ("name", "octets", "why"),
    [
        ("a.yaml", b"abuse_networks: {a: [", "line 2: is no YAML"),
        ("a.yaml", b"a:\n\t- b", "is no YAML"),
        ("a.yaml", b"- 192.0.2.1", "is no list of networks"),
        ("a.yaml", b"site: {name: x}", "is no list of networks"),
        ("a.yaml", b"abuse_networks: 192.0.2.1", "abuse_networks holds no sets"),
        ("a.yaml", b"a: *b", "line 1: *b is not defined before"),
        ("a.yaml", b"? [a]\n: b", "a name must be a word"),
        ("a.yaml", b"a: " + b"[" * 40, "it is too deep"),
        ("a.yaml", b"a: [192.0.2.1]\nb: []\na: []", "line 3: a is there twice"),
        ("a.yaml", b"cidrs: [192.0.2.1]\ncidrs: [192.0.2.2]", "line 2: cidrs is there twice"),
        ("a.yaml", b"a: [{cidr: 192.0.2.1,\n cidr: 192.0.2.2}]", "line 2: cidr is there twice"),
        ("a.yaml", b"a: [192.0.2.1]\n---\na: [192.0.2.2]", "line 2: a second document begins"),
        ("a.yaml", b"a: [192.0.2.1]\n...\n}", "is no YAML"),
        ("a.yml", b"", "is empty"),
        ("a.json", b"\n", "is empty"),
        ("a.yaml", b"# managed by puppet\n", "is empty"),
        ("a.yaml", b"\xef\xbb\xbf# managed by puppet\r\n\r\n  # more", "is empty"),
        ("a.yaml", b"# managed by puppet\n---\n", "is no list of networks"),
        ("a.json", b"# managed by puppet\n", "is empty"),
        ("a.json", b"// managed by puppet\n", "is empty"),
        ("a.json", b'{"cidrs": ["192.0.2.1"],\n"cidrs": []}', "line 2: cidrs is there twice"),
        ("a.json", b'{"a": ["192.0.2.1"],\n', "line 2: is no JSON"),
        ("a.json", b'{"a": ' + b"[" * 100_000, "it is too deep"),
        ("a.json", b"{", "line 1: is no JSON"),
        ("a.txt", b"192.0.2.1\xff", "is no text: octet 10 is not UTF-8"),
        ("a.txt", b"192.0.2.1\0", "is no text"),
        ("a.txt", b"<html>\n<h1>502</h1>\n", "there is no network in it: line 1: <html> is no network"),
        ("a.nft", b"define A = { 192.0.2.1,\n", "line 1: the } is missing that ends A"),
    ],
)
def test_a_broken_file(tmp_path: Path, name: str, octets: bytes, why: str) -> None:
    (tmp_path / name).write_bytes(octets)
    with pytest.raises(Broken) as raised:
        list(files.read(str(tmp_path / name)))
    assert why in str(raised.value)


def test_files_that_can_not_be_read(tmp_path: Path) -> None:
    for file, why in ((tmp_path / "none", "No such file or directory"), (tmp_path, "there is no file of networks")):
        with pytest.raises(Broken, match=why):
            list(files.read(str(file)))


def test_what_is_no_file_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "endless.txt").symlink_to("/dev/zero")
    for name in ("pipe.txt", "endless.txt"):
        with pytest.raises(Broken, match="is no file, but a pipe or a device"):
            list(files.read(str(tmp_path / name)))


def test_a_link_that_leads_nowhere_is_not_an_empty_list(tmp_path: Path) -> None:
    now, lists, listed = 1000.0, tmp_path / "lists", tmp_path / "today.txt"
    lists.mkdir()
    listed.write_text("192.0.2.1\n")
    (lists / "a.txt").write_text("192.0.2.2\n")
    (lists / "current.txt").symlink_to(listed)
    (lists / "round.txt").symlink_to("round.txt")
    sources = Sources((lists,), tmp_path / "own.txt")
    before = Table(making.made(sources, None, now))
    listed.unlink()
    table = Table(making.made(sources, before, now))
    assert [one.name for one in table.find(4, 0xC0000201, now)] == ["current"]
    assert [(Path(one.name).name, one.broken) for one in table.files] == [
        ("a.txt", ""),
        ("current.txt", "No such file or directory"),
        ("round.txt", "Too many levels of symbolic links"),
    ]


def test_what_is_no_word_in_json_is_told_as_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{\n"a": ["192.0.2.1", null, 12, NaN]}')
    bad = [one for one in files.read(str(tmp_path / "a.json")) if isinstance(one, Bad)]
    assert [(one.line, one.problem) for one in bad] == [(2, f"{word} is no network") for word in ("null", "12", "NaN")]


@pytest.mark.parametrize("octets", [b"", b"\n# nothing yet\n", b"\xef\xbb\xbf192.0.2.1\n"])
def test_an_empty_list_is_a_list(tmp_path: Path, octets: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(octets)
    found = list(files.read(str(tmp_path / "a.txt")))
    assert len(found) == 1 + octets.count(b"192")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


def plain(tree: object) -> object:
    """A located tree without its lines."""
    if isinstance(tree, Pairs):
        return {str(key): plain(value) for key, value in tree}
    return [plain(one) for one in tree] if isinstance(tree, list) else str(tree)


def worded(tree: object) -> object:
    """A tree of JSON with words only."""
    if isinstance(tree, dict):
        return {key: worded(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [worded(one) for one in tree]
    return tree if isinstance(tree, str) else json.dumps(tree)


@given(JSON, st.sampled_from([None, 1]))
def test_json_says_what_it_says_with_lines(tree: object, indent: int | None) -> None:
    text = json.dumps(tree, indent=indent)
    found = from_json(text)
    assert plain(found) == worded(tree)
    for word in words(found):
        assert not word.line or json.dumps(str(word)) in text.split("\n")[word.line - 1]


def words(tree: object) -> list[Word]:
    """All words of a tree."""
    if isinstance(tree, Pairs):
        return [one for key, value in tree for one in (key, *words(value))]
    return [one for inner in tree for one in words(inner)] if isinstance(tree, list) else [tree]  # type: ignore[list-item]


@given(JSON)
def test_yaml_says_the_same(tree: object) -> None:
    text = libyaml.safe_dump({"top": tree}, allow_unicode=False)
    assert plain(yaml.read(text)) == plain(as_yaml(libyaml.compose(text, Loader=libyaml.SafeLoader)))


def as_yaml(node: object) -> object:
    """The same tree by PyYAML's own composer."""
    if isinstance(node, libyaml.MappingNode):
        return Pairs((Word(key.value, 0), as_yaml(value)) for key, value in node.value)
    return [as_yaml(one) for one in node.value] if isinstance(node, libyaml.SequenceNode) else Word(node.value, 0)  # type: ignore[attr-defined]


@given(st.text(max_size=200))
def test_any_text_is_read_or_broken(text: str) -> None:
    for name, tree in (("a.txt", None), ("a.yaml", "yaml")):
        try:
            found = list(read(name, text, yaml.read(text) if tree else None))
        except Broken:
            continue
        assert all(isinstance(one, Entry | Bad) or one.name for one in found)


def test_files_that_want_too_much_memory_leave_the_table(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("cidrs:\n" + "- {cidr: 192.0.2.1, comment: x}\n" * 60_000)
    module = ["-I", "-m", "mailgate.edge.networks.making", "--table", "table", "--own", "own.txt", "a.yaml"]
    run = subprocess.run(
        ["prlimit", f"--as={100 * 2**20}", sys.executable, *module],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stderr.splitlines()[-1]) == (1, "table: no memory")
    assert not (tmp_path / "table").exists()


@pytest.mark.parametrize("page", ["docs/operating.md", "config/mailgate.toml"])
def test_the_bounds_are_those_that_are_told(page: str) -> None:
    text = (Path(__file__).parents[2] / page).read_text()
    assert f"{MAX_SETS} sets" in text
    assert f"{MAX_ENTRIES:,}" in text
    assert f"{MAX_OCTETS // 2**20} MiB" in text
