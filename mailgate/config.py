"""The configuration: one TOML file becomes one frozen value, or a list of what is wrong with it.

Every message names the key as the file has it (`relay.budget`) and the reason. Nothing is guessed: an unknown key is
an error, with the nearest known one. Keys that this version knows but does not act on yet are named in
`Config.idle_keys`, so that `check-config` and the log can say that they have no effect; their values are not looked at.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import socket
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from mailgate.core import units

DEFAULT_FILE = Path("/etc/mailgate/mailgate.toml")
_LATER = {
    "spam": "engine servers timeout max_size on_failure tag_score hold_score reject_score"
    " skip_networks skip_recipients",
    "networks": "files contexts action",
    "auth": "spf dkim dmarc arc timeout authserv_id nameservers",
    "policy": "reject_after_acceptance",
    "verdict": "listen",
    "mailman": "rest_url queue_dir",
}
_PERCENT = re.compile(r"([0-9]{1,2}(?:\.[0-9]+)?) *%")
_SOCKET_PATH = 107  # octets that fit into sockaddr_un, unix(7)


class ConfigError(Exception):
    """The configuration can't be used. `problems` has a line for each reason, each naming its key or file."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to listen or connect: a host and port, or the path of a unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Share:
    """An amount of disk: octets, or a part of the whole (0..1)."""

    octets: int = 0
    part: float = 0.0

    def of(self, whole: int) -> int:
        """The amount in octets on a disk of `whole` octets."""
        return self.octets or int(whole * self.part)


def endpoint(text: object) -> Endpoint:
    """An address: "127.0.0.1:8025", "[::1]:8025" or "unix:/run/mailgate/lmtp.sock". Raises ValueError."""
    if not isinstance(text, str):
        raise ValueError(_quoted(text, "127.0.0.1:8025"))
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/"):
            raise ValueError(f'{text!r}: the path of a unix socket is absolute, as in "unix:/run/mailgate/lmtp.sock"')
        if len(os.fsencode(path)) > _SOCKET_PATH:
            raise ValueError(f"{text!r}: the path of a unix socket has at most {_SOCKET_PATH} octets")
        return Endpoint(path=path)
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and host and port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError(f'{text!r} is not an address: write "127.0.0.1:8025", "[::1]:8025" or "unix:/path/of/socket"')
    return Endpoint(host=host, port=int(port))


def _quoted(value: object, example: str) -> str:
    return f'{value!r} is not text: write it in quotes, as in "{example}"'


def _duration(value: object) -> float:
    if not isinstance(value, str):
        raise ValueError(_quoted(value, "10s"))
    return units.seconds(value)


def _size(value: object) -> int:
    if not isinstance(value, str):
        raise ValueError(_quoted(value, "40MiB"))
    return units.octets(value)


def _share(value: object) -> Share:
    if not isinstance(value, str):
        raise ValueError(_quoted(value, "5%"))
    percent = _PERCENT.fullmatch(value)
    try:
        return Share(part=float(percent[1]) / 100) if percent else Share(octets=units.octets(value))
    except ValueError:
        raise ValueError(f'{value!r} is not a share of the disk: write "5%" or "2GiB"') from None


def _network(value: object) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(str(value), strict=False)
    except ValueError:
        raise ValueError(f'{value!r} is not a network: write "192.0.2.0/24" or "::1"') from None


def _sqlite(value: object) -> str:
    if not isinstance(value, str) or not value.startswith("sqlite:////"):
        raise ValueError(
            f'{value!r}: write "sqlite:////" and the absolute path, as in "sqlite:////var/lib/mailgate/spool.db"'
        )
    return value


Duration = Annotated[float, BeforeValidator(_duration)]
Positive = Annotated[Duration, Field(gt=0)]
Size = Annotated[int, BeforeValidator(_size), Field(gt=0)]
Network = Annotated[ipaddress.IPv4Network | ipaddress.IPv6Network, BeforeValidator(_network)]
Address = Annotated[Endpoint, BeforeValidator(endpoint)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, strict=True)


class RelayConfig(_Section):
    """The relay door. Durations in seconds, sizes in octets."""

    lmtp: tuple[Address, ...] = Field(default=(Endpoint("127.0.0.1", 8025),), strict=False)
    smtp: tuple[Address, ...] = Field(default=(), strict=False)
    trusted_peers: tuple[Network, ...] = Field(default=(_network("127.0.0.0/8"), _network("::1")), strict=False)
    max_message_size: Size = 40 * 2**20
    max_in_flight: Size = 512 * 2**20
    max_connections: Annotated[int, Field(gt=0)] = 500
    budget: Positive = 45.0
    idle_timeout: Positive = 300.0
    session_timeout: Positive = 3600.0


class MailmanConfig(_Section):
    """The next hop: Mailman's LMTP server."""

    lmtp: Address = Endpoint("127.0.0.1", 8024)
    connections: Annotated[int, Field(gt=0)] = 10
    connect_timeout: Positive = 5.0
    reply_timeout: Positive = 30.0
    probe_interval: Positive = 5.0


class SpoolConfig(_Section):
    """Messages on disk while Mailman is down."""

    url: Annotated[str, BeforeValidator(_sqlite)] = "sqlite:////var/lib/mailgate/spool.db"
    max_bytes: Size = 20 * 2**30
    min_free: Annotated[Share, BeforeValidator(_share)] = Share(part=0.05)
    lifetime: Positive = 5 * 86400.0
    retry_first: Positive = 10.0
    retry_max: Positive = 900.0

    @property
    def path(self) -> Path:
        """The file of the embedded spool."""
        return Path(self.url.removeprefix("sqlite:///"))


class ReplayConfig(_Section):
    """The pace at which spooled messages go to Mailman: at once, and a second (0 = as fast as it takes them)."""

    concurrency: Annotated[int, Field(gt=0)] = 4
    rate: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


class HttpConfig(_Section):
    """Where /metrics, /healthz and /readyz are served."""

    listen: Address = Endpoint("127.0.0.1", 9725)


class LogConfig(_Section):
    """How events are written on stderr."""

    format: Literal["json", "text"] = "json"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Config(_Section):
    """The whole configuration. `idle_keys` are keys of the file that this version reads but does not act on."""

    hostname: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9.-]+$")] = Field(
        default_factory=socket.getfqdn
    )
    relay: RelayConfig = RelayConfig()
    mailman: MailmanConfig = MailmanConfig()
    spool: SpoolConfig = SpoolConfig()
    replay: ReplayConfig = ReplayConfig()
    http: HttpConfig = HttpConfig()
    log: LogConfig = LogConfig()
    idle_keys: tuple[str, ...] = ()


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
    if "idle_keys" in tree:
        raise ConfigError(["idle_keys: unknown key"])
    tree, idle, problems = _without_later(tree)
    try:
        config = Config(**tree)
    except ValidationError as error:
        raise ConfigError(problems + [_said(problem) for problem in error.errors()]) from None
    problems += _contradictions(config)
    if problems:
        raise ConfigError(problems)
    return config.model_copy(update={"idle_keys": idle})


def find(given: Path | None) -> Path:
    """The configuration file: the one given, else MAILGATE_CONFIG, else /etc/mailgate/mailgate.toml."""
    return given or Path(os.environ.get("MAILGATE_CONFIG") or DEFAULT_FILE)


def _without_later(tree: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...], list[str]]:
    """The tree without what `_LATER` names, the keys that were taken out, and the problems found among them."""
    kept: dict[str, Any] = {}
    idle: list[str] = []
    problems: list[str] = []
    for name, value in tree.items():
        later = _LATER.get(name, "").split()
        if not later or not isinstance(value, dict):
            kept[name] = value
            continue
        idle += [f"{name}.{key}" for key in value if key in later]
        left = {key: inner for key, inner in value.items() if key not in later}
        if name in Config.model_fields:
            kept[name] = left
        else:
            problems += [f"{name}.{key}: unknown key{_nearest(key, later)}" for key in left]
    return kept, tuple(idle), problems


def _contradictions(config: Config) -> Iterator[str]:
    relay, mailman, spool = config.relay, config.mailman, config.spool
    if not relay.lmtp and not relay.smtp:
        yield "relay.lmtp: no address to listen on: give relay.lmtp or relay.smtp at least one"
    listens = [str(at) for at in (*relay.lmtp, *relay.smtp, config.http.listen)]
    for at in sorted({at for at in listens if listens.count(at) > 1}):
        yield f"relay.lmtp: {at} is listened on twice: relay.lmtp, relay.smtp and http.listen each need their own"
    if str(mailman.lmtp) in listens:
        yield f"mailman.lmtp: {mailman.lmtp} is an address of mailgate's own: mail would go round in a circle"
    if relay.max_in_flight < relay.max_message_size:
        yield "relay.max_in_flight: less than relay.max_message_size: a message of that size could never pass"
    if spool.retry_first > spool.retry_max:
        yield "spool.retry_first: longer than spool.retry_max"
    if mailman.connect_timeout >= relay.budget:
        yield "mailman.connect_timeout: not shorter than relay.budget: nothing would be left to spool the message in"
    if config.replay.concurrency >= mailman.connections > 1:
        yield "replay.concurrency: must leave fresh mail a connection: make it less than mailman.connections"


def _said(problem: Any) -> str:
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"])[1:]
    kind, given = problem["type"], problem["input"]
    if kind == "extra_forbidden" and where in _LATER:
        return f"{where}: is a section: write [{where}]"
    if kind == "extra_forbidden":
        return f"{where}: unknown key{_nearest(str(problem['loc'][-1]), _known(problem['loc'][:-1]))}"
    if kind == "value_error":
        return f"{where}: {problem['ctx']['error']}"
    if kind == "tuple_type":
        return f"{where}: {given!r} is not a list: write it in brackets, as in [{given!r}]".replace("'", '"')
    if kind in {"model_type", "dict_type", "model_attributes_type"}:
        return f"{where}: is a section: write [{where}]"
    return f"{where}: {given!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}"


def _known(section: tuple[int | str, ...]) -> list[str]:
    """The keys of a section, or of the whole file."""
    if section:
        model = Config.model_fields[str(section[0])].annotation
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        return [*model.model_fields, *_LATER.get(str(section[0]), "").split()]
    return [*(name for name in Config.model_fields if name != "idle_keys"), *_LATER]


def _nearest(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f" (did you mean {close[0]}?)" if close else f" (known: {', '.join(dict.fromkeys(known))})"


def surroundings(config: Config) -> list[str]:
    """What stands outside the file and would keep the daemon from working: places that are missing or forbidden."""
    problems = []
    places = [("spool.url", config.spool.path)]
    for name, endpoints in (
        ("relay.lmtp", config.relay.lmtp),
        ("relay.smtp", config.relay.smtp),
        ("http.listen", (config.http.listen,)),
    ):
        places += [(name, Path(at.path)) for at in endpoints if at.path]
    for key, path in places:
        if not path.parent.is_dir():
            problems.append(f"{key}: {path}: there is no directory {path.parent}")
        elif not os.access(path.parent, os.W_OK | os.X_OK):
            problems.append(f"{key}: {path}: the directory {path.parent} can't be written to by this user")
        elif path.is_dir():
            problems.append(f"{key}: {path} is a directory: give the name of a file in it")
        elif path.exists() and not os.access(path, os.R_OK | os.W_OK):
            problems.append(f"{key}: {path} can't be read and written by this user")
    return problems
