"""The configuration: one TOML file becomes one frozen value, or a list of what is wrong with it.

Every message names the key as the file has it (`relay.budget`) and the reason. Nothing is guessed: an unknown key is
an error, with the nearest known one.
"""

from __future__ import annotations

import difflib
import os
import socket
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from mailgate.config.sections import (
    AuthConfig,
    AuthListConfig,
    Config,
    HistoryConfig,
    HttpConfig,
    LimitsConfig,
    LogConfig,
    MailmanConfig,
    NetworksConfig,
    PolicyConfig,
    RelayConfig,
    ReplayConfig,
    SpamConfig,
    SpamListConfig,
    SpoolConfig,
    VerdictConfig,
)
from mailgate.core.endpoint import Endpoint
from mailgate.core.mailman_queues import QUEUES
from mailgate.core.units import Share, said_seconds

__all__ = [
    "AuthConfig",
    "AuthListConfig",
    "Config",
    "ConfigError",
    "Endpoint",
    "HistoryConfig",
    "HttpConfig",
    "LimitsConfig",
    "LogConfig",
    "MailmanConfig",
    "NetworksConfig",
    "PolicyConfig",
    "RelayConfig",
    "ReplayConfig",
    "Share",
    "SpamConfig",
    "SpamListConfig",
    "SpoolConfig",
    "VerdictConfig",
    "find",
    "load",
    "parse",
    "surroundings",
    "with_fixed",
]
DEFAULT_FILE = Path("/etc/mailgate/mailgate.toml")
_FIXED = (  # taken only at the start
    *("hostname", "relay.lmtp", "relay.smtp", "verdict.listen", "spool.url", "http.listen"),
    *("spam.engine", "spam.servers", "spam.connections", "auth.nameservers"),
)
_LEAST_LOOKING = 1.0  # seconds in which a message can be looked at, at all
_LISTS: dict[tuple[int | str, ...], type[BaseModel]] = {
    ("spam", "lists"): SpamListConfig,
    ("auth", "lists"): AuthListConfig,
}


class ConfigError(Exception):
    """The configuration can't be used. `problems` has a line for each reason, each naming its key or file."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def load(file: Path) -> Config:
    """Read the file. Raises ConfigError with every problem found."""
    try:
        tree = tomllib.loads(file.read_bytes().decode("utf-8"))
    except OSError as error:
        raise ConfigError([f"{file}: {error.strerror}"]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError([f"{file}: not TOML: {error}"]) from error
    return parse(tree)


def parse(tree: dict[str, Any]) -> Config:
    """The configuration of a TOML tree. Raises ConfigError with every problem found."""
    try:
        config = Config(**tree)
    except ValidationError as error:
        raise ConfigError([_said(problem) for problem in error.errors()]) from None
    if problems := list(_contradictions(config)):
        raise ConfigError(problems)
    return config


def find(given: Path | None) -> Path:
    """The configuration file: the one given, else MAILGATE_CONFIG, else /etc/mailgate/mailgate.toml."""
    return given or Path(os.environ.get("MAILGATE_CONFIG") or DEFAULT_FILE)


def _contradictions(config: Config) -> Iterator[str]:
    relay, mailman, spool, spam, verdict = config.relay, config.mailman, config.spool, config.spam, config.verdict
    if not relay.lmtp and not relay.smtp:
        yield "relay.lmtp: no address to listen on: give relay.lmtp or relay.smtp at least one"
    listens: dict[str, str] = {}  # by address: whose it is
    for key, address in _listened(config):
        if (at := str(address)) in listens:
            twice = "it stands there twice" if listens[at] == key else f"{listens[at]} has it, too"
            yield f"{key}: {at} can't be listened on twice: {twice}"
        listens[at] = key
    if str(mailman.lmtp) in listens:
        yield f"mailman.lmtp: {mailman.lmtp} is an address of mailgate's own: mail would go round in a circle"
    if relay.max_in_flight < relay.max_message_size:
        yield "relay.max_in_flight: less than relay.max_message_size: a message of that size could never pass"
    if verdict.max_in_flight < relay.max_message_size:
        yield "verdict.max_in_flight: less than relay.max_message_size: a message of that size could never be judged"
    if verdict.listen and verdict.looking < _LEAST_LOOKING:
        least = said_seconds(verdict.writing + _LEAST_LOOKING)
        yield f"verdict.budget: shorter than {least}: a second of it is for writing the verdict down, so that no time \
would be left to look at the message"
    if spam.engine != "off" and (own := {*map(str, spam.servers)} & {*map(str, verdict.listen)}):
        yield f"spam.servers: {min(own)} is the verdict door: it would ask itself"
    if mailman.spool_when_stalled and not mailman.queue_dir:
        yield "mailman.spool_when_stalled: needs mailman.queue_dir: nothing else shows that Mailman stands still"
    if mailman.rest_url and not mailman.rest_secret_file.octets:
        yield "mailman.rest_url: needs mailman.rest_secret_file: Mailman's REST interface wants a user and a password"
    if spool.retry_first > spool.retry_max:
        yield "spool.retry_first: longer than spool.retry_max"
    if mailman.connect_timeout >= relay.budget:
        yield "mailman.connect_timeout: not shorter than relay.budget: nothing would be left to spool the message in"
    if spam.engine != "off" and not spam.servers:
        yield 'spam.servers: nobody to ask: name a server, or write spam.engine = "off"'
    if double := next((one for one in spam.servers if spam.servers.count(one) > 1), None):
        yield f"spam.servers: {double} is named twice: to ask it again tells nothing new"
    if spam.engine == "rspamd" and "servers" not in spam.model_fields_set:
        yield 'spam.servers: is needed for rspamd (the default is where spamd listens), as in ["127.0.0.1:11333"]'
    if spam.engine != "off" and spam.timeout >= relay.budget:
        yield "spam.timeout: not shorter than relay.budget: nothing would be left to deliver the message in"
    if 0 < spam.reject_score <= spam.hold_score:
        yield "spam.hold_score: not below spam.reject_score: nothing would ever be held for its score"
    yield from _contradictions_of_auth(config)
    if config.for_limiter.rates and not verdict.listen:
        yield f"limits.{min(config.for_limiter.rates)}: only the verdict door can put mail off: give verdict.listen"
    if config.replay.concurrency >= mailman.connections > 1:
        yield "replay.concurrency: must leave fresh mail a connection: make it less than mailman.connections"


def _listened(config: Config) -> Iterator[tuple[str, Endpoint]]:
    """Each address that is listened on, with its key."""
    yield from (("relay.lmtp", at) for at in config.relay.lmtp)
    yield from (("relay.smtp", at) for at in config.relay.smtp)
    yield from (("verdict.listen", at) for at in config.verdict.listen)
    yield "http.listen", config.http.listen


def _contradictions_of_auth(config: Config) -> Iterator[str]:
    auth = config.auth
    asked: dict[str, str | None] = {"dmarc_enforce": auth.dmarc_enforce, "spf_fail": auth.spf_fail}
    for number, one in enumerate(auth.lists):
        asked |= {f"lists[{number}].dmarc_enforce": one.dmarc_enforce, f"lists[{number}].spf_fail": one.spf_fail}
    if auth.dmarc and not (auth.spf or auth.dkim):
        yield "auth.dmarc: rests on auth.spf and auth.dkim, which are both false: it would fail for all mail"
    if "timeout" in auth.model_fields_set and auth.timeout >= config.relay.budget:
        yield "auth.timeout: not shorter than relay.budget: nothing would be left to deliver the message in"
    for key, needed in (("dmarc_enforce", "dmarc"), ("spf_fail", "spf")):
        for name, value in asked.items():
            if name.endswith(key) and value not in {None, "none"} and not getattr(auth, needed):
                yield f"auth.{name}: without auth.{needed} there is nothing to go by"
    if auth.trusted_sealers and not auth.arc:
        yield "auth.trusted_sealers: without auth.arc no seal is looked at"


def _said(problem: Any) -> str:
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"])[1:]
    kind, given = problem["type"], problem["input"]
    if kind == "extra_forbidden":
        return f"{where}: unknown key{_nearest(str(problem['loc'][-1]), _known(problem['loc'][:-1]))}"
    if kind == "missing":
        return f"{where}: is missing"
    if kind == "value_error":
        return f"{where}: {problem['ctx']['error']}"
    if kind == "tuple_type" and isinstance(given, dict):
        return f"{where}: is a list of sections: write [[{where}]]"
    if kind == "tuple_type":
        return f"{where}: {given!r} is not a list: write it in brackets, as in [{given!r}]".replace("'", '"')
    if kind in {"model_type", "dict_type", "model_attributes_type"}:
        return f"{where}: is a section: write [{where}]"
    return f"{where}: {given!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}"


def _known(section: tuple[int | str, ...]) -> list[str]:
    """The keys of a section, or of the whole file."""
    if section:
        model = _LISTS.get(section[:2], Config.model_fields[str(section[0])].annotation)
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        return [*model.model_fields]
    return [*Config.model_fields]


def _nearest(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f" (did you mean {close[0]}?)" if close else f" (known: {', '.join(dict.fromkeys(known))})"


def surroundings(config: Config) -> list[str]:
    """What stands outside the file and would keep the daemon from working: places that are missing or forbidden."""
    listened = list(_listened(config))
    problems = [problem for key, at in listened if not at.path and (problem := _no_address_of_ours(key, at))]
    places = [("spool.url", config.spool.path)]
    places += [(key, Path(at.path)) for key, at in listened if at.path]
    for key, path in places:
        if not path.parent.is_dir():
            problems.append(f"{key}: {path}: there is no directory {path.parent}")
        elif not os.access(path.parent, os.W_OK | os.X_OK):
            problems.append(f"{key}: {path}: the directory {path.parent} can't be written to by this user")
        elif path.is_dir():
            problems.append(f"{key}: {path} is a directory: give the name of a file in it")
        elif path.exists() and not os.access(path, os.R_OK | os.W_OK):
            problems.append(f"{key}: {path} can't be read and written by this user")
    return problems + _queues(config.mailman.queue_dir)


def _queues(directory: Path | None) -> list[str]:
    if directory and not directory.is_dir():
        return [f"mailman.queue_dir: {directory}: there is no such directory, or this user may not see it"]
    for queue in (directory, *(directory / name for name in QUEUES)) if directory else ():
        if queue.exists() and not os.access(queue, os.R_OK | os.X_OK):
            return [f"mailman.queue_dir: {queue} can't be read by this user: is it in Mailman's group?"]
    return []


def _no_address_of_ours(key: str, at: Endpoint) -> str:
    try:
        ((family, kind, _, _, address), *_) = socket.getaddrinfo(at.host, 0, type=socket.SOCK_STREAM)
        with socket.socket(family, kind) as probe:
            probe.bind(address)  # on any free port: the daemon may have the one that is meant
    except OSError as error:
        return f"{key}: {at}: can't be listened on here: {error.strerror}"
    return ""


def with_fixed(new: Config, old: Config) -> tuple[Config, list[str]]:
    """`new` with the values of `old` where a restart is needed, and the keys for which that makes a difference."""
    changed = []
    for key in _FIXED:
        section, _, name = key.rpartition(".")
        here, there = (getattr(new, section), getattr(old, section)) if section else (new, old)
        if getattr(here, name) != getattr(there, name):
            changed.append(key)
            part = here.model_copy(update={name: getattr(there, name)})
            new = new.model_copy(update={section: part}) if section else part
    return new, changed
