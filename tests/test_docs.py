"""README, docs and --help say what the code does: every name that they give is looked for there."""

import re
import tomllib
from pathlib import Path

import click
import typer

from mailgate.cli.main import app
from mailgate.config import Config
from mailgate.edge.log import EventLog
from mailgate.edge.telemetry import Telemetry

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CHANGELOG.md"]
_VERB = re.compile(r"mailgate ((?:queue |spool |unscored |networks )?[a-z][a-z-]*)\b")
_NOT_VERBS = {"queue", "spool", "unscored", "networks"}


def pages() -> str:
    """All pages together."""
    return "\n".join(page.read_text() for page in PAGES)


def commands() -> set[str]:
    """The verbs that the pages show in code."""
    code = re.findall(r"`([^`\n]*)`", pages()) + re.findall(r"(?m)^(?:\$ )?(mailgate .*)$", pages())
    return {found for line in code for found in _VERB.findall(line)} - _NOT_VERBS


def verbs(group: click.Command | None = None, path: str = "") -> dict[str, click.Command]:
    """Every verb of the command line with its words."""
    found: dict[str, click.Command] = {}
    for name, command in (group or typer.main.get_command(app)).commands.items():  # type: ignore[attr-defined]
        words = f"{path} {name}".strip()
        found |= verbs(command, words) if hasattr(command, "commands") else {words: command}
    return found


def test_every_command_exists() -> None:
    """What a page tells to type is a verb."""
    shown = commands()
    assert len(shown) > 10
    assert not shown - verbs().keys()


def test_every_verb_is_told_of_and_teaches() -> None:
    """A verb that nobody tells of is no use to anybody, nor is one that does not say what it does."""
    for words, command in verbs().items():
        assert re.search(rf"mailgate {words}\b", pages()), words
        assert len(command.help or "") > 40, words


def test_every_metric_exists() -> None:
    """Metrics that a page names are exposed, or computed at a scrape; what is called like one is a file of Exim's."""
    log = EventLog()
    exposed = Telemetry(log).exposition()[1].decode()
    log.close()
    at_scrape = "".join(file.read_text() for file in (ROOT / "mailgate").rglob("*.py"))
    files = {file.name.removeprefix("mailgate_") for file in (ROOT / "config" / "exim4").rglob("mailgate_*")}
    for name in set(re.findall(r"\bmailgate_([a-z_]+)", pages())) - files:
        assert f"mailgate_{name}" in exposed or f'"{name}"' in at_scrape, name


def test_every_key_exists() -> None:
    """`section.key` in a page is a key of the configuration."""
    code = "".join(file.read_text() for file in (ROOT / "mailgate").rglob("*.py"))
    sections = {name: field.annotation for name, field in Config.model_fields.items()}
    for section, key in set(re.findall(r"`([a-z]+)\.([a-z_]+)`", pages())):
        event_or_file = f'"{section}.{key}"' in code or key in {"db", "toml"}
        if section in sections and not event_or_file:
            assert key in getattr(sections[section], "model_fields", {}), f"{section}.{key}"


def test_every_file_exists() -> None:
    """Paths in a page lead somewhere in the repository."""
    tracked = {"mailgate", "config", "tests", "systemd", "fixtures", "docs", "bench"}
    for path in set(re.findall(r"`([\w./-]+/[\w./-]*)`", pages())):
        if path.split("/")[0] in tracked:
            assert (ROOT / path).exists(), path


def test_every_dependency_has_its_reason() -> None:
    """The README names each package that mailgate or its tests stand on."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    readme = (ROOT / "README.md").read_text().lower()
    for line in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        name = re.split(r"[<>=\[ ]", line)[0].lower()
        assert name in readme, name


def test_the_targets_of_make_exist() -> None:
    """`make NAME` in a page is a target."""
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"\bmake (demo|test|check|bench|lock|[a-z]+)\b`", pages())):
        assert re.search(rf"(?m)^{target}:", makefile), target


def test_the_lock_files_hold_no_address() -> None:
    """Versions and hashes, from wherever the operator gets packages."""
    for lock in [*ROOT.glob("requirements*.lock"), *ROOT.glob("tests/stack/*.lock")]:
        text = lock.read_text()
        assert "://" not in text, lock
        assert not re.search(r"(?m)^--", text), lock
        assert text.count("--hash=sha256:") > 10, lock
