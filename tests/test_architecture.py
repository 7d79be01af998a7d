"""Who may import whom (DESIGN §5), and how large a file and a function may grow: read from the source with `ast`."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "mailgate").rglob("*.py"))
MAX_LINES, MAX_FUNCTION = 350, 60

# Imports only go down. "version" is the package itself; each edge may also import its own parts.
MAY_IMPORT = {
    "version": set[str](),
    "core": {"core"},
    "ports": {"core"},
    "config": {"core", "config"},
    "deadlines": set[str](),
    "turns": set[str](),
    "strays": set[str](),
    "scanner": {"core", "ports", "strays"},
    "blocking": {"core", "ports"},
    "joining": {"core", "ports", "deadlines", "strays"},
    "case": {"core", "ports"},
    "checking": {"core", "ports", "deadlines", "strays"},
    "relay": {"core", "ports", "config", "case", "deadlines", "strays", "joining", "checking", "blocking"},
    "replay": {"core", "ports", "config", "strays"},
    "verdict": {"core", "ports", "config", "deadlines", "strays", "checking", "blocking"},
    "edge": {"core", "ports", "config", "turns", "strays", "version"},
    "wiring": {"core", "ports", "config", "scanner", "checking", "edge"},
    "pages": {"core", "ports", "config", "scanner", "verdict", "blocking", "edge", "version"},
    "daemon": {
        *("core", "ports", "config", "strays", "relay", "replay", "wiring", "verdict", "blocking", "pages", "edge"),
        "version",
    },
    "cli": {
        *("core", "ports", "config", "relay", "replay", "checking", "deadlines", "wiring", "edge", "daemon", "cli"),
        "version",
    },
    "__main__": {"cli"},
}
# What is counted and what is said leave by the same door; all doors listen in the same way;
# what may hang is looked at in the same way.
EDGES_TOGETHER = {
    "telemetry": {"log"},
    **{door: {"sockets"} for door in ("listener", "verdictport", "http")},
    **{edge: {"threads"} for edge in ("mailmanwatch", "networks")},
}
# The verbs work while the daemon is stopped: `queue replay` then delivers by itself, and says what it does.
EDGES_OF_CLI = {"spool", "mailman", "log", "networks"}

# One third-party library, one door.
DOORS = {
    "aiohttp": "mailgate/edge/rspamd.py",
    "aiosmtpd": "mailgate/edge/listener/",
    "aiospamc": "mailgate/edge/spamd.py",
    "authres": "mailgate/edge/results.py",
    "dkim": "mailgate/edge/auth/keys.py",
    "dns": "mailgate/edge/dns/",
    "nacl": "mailgate/edge/auth/keys.py",
    "spf": "mailgate/edge/auth/spf.py",
    "sqlalchemy": "mailgate/edge/spool/",
    "prometheus_client": "mailgate/edge/telemetry.py",
    "pydantic": "mailgate/config/",
    "yaml": "mailgate/edge/networks/yaml.py",
    "typer": "mailgate/cli/",
    "rich": "mailgate/cli/",
    "uvloop": "mailgate/daemon.py",
}
PACKAGES = {
    "dkim": "dkimpy",
    "dns": "dnspython",
    "nacl": "pynacl",
    "spf": "pyspf",
    "yaml": "pyyaml",
}  # that are imported by another name
IMPURE = {
    *("asyncio", "concurrent", "logging", "multiprocessing", "os", "pathlib", "random", "secrets", "select", "shutil"),
    *("signal", "socket", "sqlite3", "ssl", "subprocess", "tempfile", "threading", "time", "uuid"),
}


def name(file: Path) -> str:
    """The path of a file as people say it."""
    return str(file.relative_to(ROOT))


def imports(file: Path) -> Iterator[str]:
    """The dotted names that a file imports, wherever in it; of `from a import b`, a.b."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(file)}: write the whole name of what is imported"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(dotted: str) -> str:
    """The layer that a name of ours belongs to."""
    _, _, rest = dotted.partition(".")
    first = rest.partition(".")[0]
    return first if first in MAY_IMPORT else "version"


def edge(dotted: str) -> str:
    """The edge that a name of the edges belongs to."""
    return dotted.split(".")[2]


def own(file: Path) -> str:
    """The dotted name of a file."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_imports_only_go_down() -> None:
    wrong = []
    for file in FILES:
        here = layer(own(file))
        for dotted in imports(file):
            if dotted.split(".")[0] == "mailgate" and layer(dotted) not in MAY_IMPORT[here]:
                same_edge = here == layer(dotted) == "edge"
                wrong += [] if same_edge else [f"{name(file)} imports {dotted}"]
    assert wrong == []


def test_edges_do_not_import_each_other() -> None:
    wrong = []
    for file in FILES:
        here = own(file)
        if layer(here) != "edge" or here == "mailgate.edge":
            continue
        allowed = {edge(here), *EDGES_TOGETHER.get(edge(here), ())}
        found = {dotted for dotted in imports(file) if dotted.startswith("mailgate.edge")}
        wrong += [f"{name(file)} imports {dotted}" for dotted in found if edge(dotted) not in allowed]
    assert wrong == []


def test_only_the_daemon_knows_all_edges() -> None:
    used = {
        edge(dotted)
        for file in FILES
        if layer(own(file)) == "cli"
        for dotted in imports(file)
        if dotted.startswith("mailgate.edge")
    }
    assert used <= EDGES_OF_CLI


def test_the_core_is_pure() -> None:
    wrong = []
    for file in (ROOT / "mailgate" / "core").rglob("*.py"):
        for dotted in imports(file):
            top = dotted.split(".")[0]
            if dotted.startswith("mailgate.core") or (top in sys.stdlib_module_names and top not in IMPURE):
                continue
            wrong.append(f"{name(file)} imports {dotted}")
    assert wrong == []


@pytest.mark.parametrize("call", ["open", "print", "input", "exec", "eval"])
def test_the_core_touches_nothing(call: str) -> None:
    for file in (ROOT / "mailgate" / "core").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == call)
            assert not isinstance(node, ast.Await | ast.AsyncFunctionDef | ast.Global)


def test_each_library_has_one_door() -> None:
    wrong = []
    for file in FILES:
        for dotted in imports(file):
            top = dotted.split(".")[0]
            if top == "mailgate" or top in sys.stdlib_module_names:
                continue
            if top not in DOORS or not name(file).startswith(DOORS[top]):
                wrong.append(f"{name(file)} imports {dotted}")
    assert wrong == []


def test_each_dependency_is_needed_and_each_needed_one_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.split(r"[<>=\[~!; ]", text)[0].lower().replace("-", "_") for text in project["dependencies"]}
    used = {dotted.split(".")[0] for file in FILES for dotted in imports(file)} - set(sys.stdlib_module_names)
    assert used - {"mailgate"} == set(DOORS)
    assert declared - {"click"} == {
        PACKAGES.get(one, one) for one in DOORS
    }  # click is named to be bounded, see pyproject.toml


def test_no_file_is_too_long_to_read() -> None:
    lines = {name(file): len(file.read_text(encoding="utf-8").splitlines()) for file in FILES}
    assert {file: count for file, count in lines.items() if count > MAX_LINES} == {}


def test_a_function_fits_a_screen() -> None:
    wrong = {}
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > MAX_FUNCTION:
                    wrong[f"{name(file)}: {node.name}"] = lines
    assert wrong == {}


def test_every_module_opens_with_its_contract() -> None:
    silent = [name(file) for file in FILES if not ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))]
    assert silent == []
