"""The configuration: each mistake is told by its key and its reason, and the shipped file says what is true."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
import tomllib
from multiprocessing import get_context
from pathlib import Path

import pytest
from click.testing import Result
from pydantic import BaseModel
from typer.testing import CliRunner

from mailgate import config as configuration
from mailgate.cli.main import app
from mailgate.config import Config, ConfigError, Endpoint, Share, load, parse
from mailgate.config.kinds import Secret
from mailgate.core.endpoint import endpoint, url
from mailgate.core.limits import Rate

ROOT = Path(__file__).parent.parent
BAD = sorted((ROOT / "tests" / "bad_config").iterdir())
SHIPPED = ROOT / "config" / "mailgate.toml"
COMMENTED_KEY = re.compile(r"^#(?=[a-z0-9_]+ = )", re.MULTILINE)
MINUTE, DAY, MIB, GIB = 60, 86_400, 2**20, 2**30

DEFAULTS = {
    "relay.lmtp": (Endpoint("127.0.0.1", 8025),),
    "relay.smtp": (),
    "relay.trusted_peers": ("127.0.0.0/8", "::1/128"),
    "relay.client_secret_file": Secret(),
    "relay.proxy_protocol": False,
    "relay.xclient": False,
    "relay.max_message_size": 40 * MIB,
    "relay.max_in_flight": 512 * MIB,
    "relay.max_connections": 500,
    "relay.budget": 45,
    "relay.idle_timeout": 5 * MINUTE,
    "relay.session_timeout": 60 * MINUTE,
    "mailman.lmtp": Endpoint("127.0.0.1", 8024),
    "mailman.connections": 10,
    "mailman.connect_timeout": 5,
    "mailman.reply_timeout": 30,
    "mailman.probe_interval": 5,
    "mailman.queue_dir": None,
    "mailman.pid_file": None,
    "mailman.rest_url": None,
    "mailman.rest_secret_file": Secret(),
    "mailman.stalled_after": 15 * MINUTE,
    "mailman.spool_when_stalled": False,
    "spool.url": "sqlite:////var/lib/mailgate/spool.db",
    "spool.max_bytes": 20 * GIB,
    "spool.min_free": Share(part=0.05),
    "spool.lifetime": 5 * DAY,
    "spool.retry_first": 10,
    "spool.retry_max": 15 * MINUTE,
    "replay.concurrency": 4,
    "replay.rate": 0,
    "spam.engine": "spamd",
    "spam.servers": (Endpoint("127.0.0.1", 783),),
    "spam.connections": 8,
    "spam.timeout": 10,
    "spam.probe_interval": 1,
    "spam.max_size": 400 * 1024,
    "spam.on_failure": "accept",
    "spam.hold_at_most": 60 * MINUTE,
    "spam.tag_score": 1,
    "spam.hold_score": 0,
    "spam.reject_score": 6,
    "spam.skip_networks": (),
    "spam.skip_recipients": ("postmaster", "abuse"),
    "spam.lists": (),
    "auth.spf": True,
    "auth.dkim": True,
    "auth.dmarc": True,
    "auth.arc": True,
    "auth.timeout": 5,
    "auth.authserv_id": "",
    "auth.nameservers": (),
    "auth.dmarc_enforce": "none",
    "auth.spf_fail": "none",
    "auth.trusted_sealers": (),
    "auth.lists": (),
    "networks.files": (),
    "networks.contexts": ("mx",),
    "networks.action": "reject",
    "networks.actions": {},
    "networks.drift_contexts": ("ferm",),
    "networks.own_file": Path("/var/lib/mailgate/local-networks.txt"),
    "policy.reject_after_acceptance": "hold",
    "verdict.listen": (),
    "verdict.budget": 15,
    "verdict.max_connections": 100,
    "verdict.max_in_flight": 256 * MIB,
    "limits.commands": None,
    "limits.network": None,
    "limits.sender": None,
    "limits.ipv4_prefix": 24,
    "limits.ipv6_prefix": 56,
    "history.keep": 14 * DAY,
    "history.max_bytes": GIB,
    "http.listen": Endpoint("127.0.0.1", 9725),
    "log.format": "json",
    "log.level": "info",
    "log.redact": False,
}


def check(file: Path | str, **environment: str) -> Result:
    """`mailgate check-config --config FILE`, in this process."""
    return CliRunner().invoke(app, ["check-config", "--config", str(file)], env=environment)


def keys(section: BaseModel, prefix: str = "") -> dict[str, object]:
    """Every key of a configuration by its name in the file, with its value."""
    found: dict[str, object] = {}
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            found |= keys(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def working(folder: Path) -> str:
    """A configuration whose places exist."""
    return f'hostname = "lists.test"\nspool.url = "sqlite:///{folder}/spool.db"\n'


# bad ones


@pytest.mark.parametrize("folder", BAD, ids=[folder.name for folder in BAD])
def test_a_bad_configuration_is_told_in_words_a_person_needs(folder: Path) -> None:
    result = check(folder / "mailgate.toml")
    assert result.exit_code == 1
    assert result.stdout == ""
    for words in (folder / "expected").read_text().splitlines():
        assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_each_line_is_the_programs_and_names_one_problem() -> None:
    folder = ROOT / "tests" / "bad_config" / "43-three-at-once"
    lines = check(folder / "mailgate.toml").stderr.splitlines()
    assert [line.split(": ")[2] for line in lines] == ["relay.buget", "spam.timout", "log.level"]


def test_the_command_itself_ends_with_status_1() -> None:
    file = ROOT / "tests" / "bad_config" / "04-unknown-key" / "mailgate.toml"
    run = subprocess.run(
        [sys.executable, "-m", "mailgate", "check-config", "--config", file],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == f"mailgate: {file}: relay.buget: unknown key (did you mean budget?)\n"


def test_serve_refuses_it_in_the_same_words() -> None:
    file = ROOT / "tests" / "bad_config" / "04-unknown-key" / "mailgate.toml"
    result = CliRunner().invoke(app, ["serve", "--config", str(file)])
    words = f"mailgate: {file}: relay.buget: unknown key (did you mean budget?)\n"
    assert (result.exit_code, result.stderr) == (1, words)


def test_an_unreachable_file(tmp_path: Path) -> None:
    for file, why in ((tmp_path / "none.toml", "No such file or directory"), (tmp_path, "Is a directory")):
        result = check(file)
        assert (result.exit_code, result.stderr) == (1, f"mailgate: {file}: {why}\n")


@pytest.mark.parametrize(("key", "value"), [("relay.lmtp", ["192.0.2.1:8025"]), ("http.listen", "192.0.2.1:9725")])
def test_an_address_of_another_host(key: str, value: object, tmp_path: Path) -> None:
    section, name = key.split(".")
    tree = {"spool": {"url": f"sqlite:///{tmp_path}/spool.db"}, section: {name: value}}
    (problem,) = configuration.surroundings(parse(tree))
    assert problem.startswith(f"{key}: 192.0.2.1:")
    assert problem.endswith(": can't be listened on here: Cannot assign requested address")


def _problems(url: str) -> list[str]:
    return configuration.surroundings(parse({"spool": {"url": url}}))


def _become_nobody() -> None:
    if os.geteuid() == 0:  # who may write everywhere
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)


def test_a_place_that_is_not_ours() -> None:
    with tempfile.TemporaryDirectory() as name, get_context("fork").Pool(1, _become_nobody) as nobody:
        folder = Path(name)
        (folder / "closed").mkdir()
        (folder / "spool.db").touch(0o400)
        (folder / "closed").chmod(0o555)
        folder.chmod(0o777)
        assert nobody.apply(_problems, (f"sqlite:///{name}/new.db",)) == []
        assert nobody.apply(_problems, (f"sqlite:///{name}/spool.db",)) == [
            f"spool.url: {name}/spool.db can't be read and written by this user"
        ]
        assert nobody.apply(_problems, (f"sqlite:///{name}/closed/spool.db",)) == [
            f"spool.url: {name}/closed/spool.db: the directory {name}/closed can't be written to by this user"
        ]


def test_a_secret_is_one_line_of_a_file_and_is_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "client.secret"
    for octets, why in ((b"", "one line"), (b"\r\n", "one line"), (b"a\nb\n", "one line"), (b"a" * 5000, "one line")):
        file.write_bytes(octets)
        with pytest.raises(ConfigError, match=f"relay.client_secret_file: {file}: is to hold {why}"):
            parse({"relay": {"client_secret_file": str(file)}})
    file.write_bytes(b"open sesame\n")
    read = parse({"relay": {"client_secret_file": str(file)}})
    assert read.relay.client_secret_file.octets == b"open sesame"
    assert "sesame" not in repr(read)


def test_a_queue_that_can_not_be_seen(tmp_path: Path) -> None:
    tree = {"spool": {"url": f"sqlite:///{tmp_path}/spool.db"}, "mailman": {"queue_dir": f"{tmp_path}/queue"}}
    words = f"mailman.queue_dir: {tmp_path}/queue: there is no such directory, or this user may not see it"
    assert configuration.surroundings(parse(tree)) == [words]
    with tempfile.TemporaryDirectory() as name, get_context("fork").Pool(1, _become_nobody) as nobody:
        Path(name).chmod(0o777)
        (Path(name) / "queue" / "in").mkdir(parents=True)
        (Path(name) / "queue" / "in").chmod(0)
        (problem,) = nobody.apply(_queue_problems, (name,))
        assert problem == f"mailman.queue_dir: {name}/queue/in can't be read by this user: is it in Mailman's group?"


def _queue_problems(folder: str) -> list[str]:
    tree = {"spool": {"url": f"sqlite:///{folder}/spool.db"}, "mailman": {"queue_dir": f"{folder}/queue"}}
    return configuration.surroundings(parse(tree))


def test_a_url_is_said_as_it_is_written() -> None:
    for text, said in (("http://127.0.0.1:8001/3.1/", "http://127.0.0.1:8001/3.1"), ("http://[::1]:8001", None)):
        assert str(url(text)) == (said or text)


# good ones


def test_what_the_recipes_exim_takes_is_not_too_large() -> None:
    """Exim counts a line end as one octet; lines of some twenty characters are as short as those of real mail."""
    recipe = (ROOT / "config/exim4/conf.d/main/00_mailgate").read_text()
    (megabytes,) = re.findall(r"(?m)^MESSAGE_SIZE_LIMIT = (\d+)M$", recipe)
    mailmans = 32 * MIB
    assert int(megabytes) * MIB * 21 / 20 + 64 * 1024 <= mailmans <= parse({}).relay.max_message_size


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ('hostname = "lists-1.example.org"', "hostname", "lists-1.example.org"),
        ('relay.lmtp = ["[::1]:8025"]', "relay.lmtp", (Endpoint("::1", 8025),)),
        ('relay.lmtp = ["unix:{0}/l.sock"]', "relay.lmtp", (Endpoint(path="{0}/l.sock"),)),
        ('relay = {{ lmtp = [], smtp = ["127.0.0.1:2525"] }}', "relay.smtp", (Endpoint("127.0.0.1", 2525),)),
        ('relay.trusted_peers = ["192.0.2.1", "::1"]', "relay.trusted_peers", ("192.0.2.1/32", "::1/128")),
        ('relay.trusted_peers = ["192.0.2.0/24"]', "relay.trusted_peers", ("192.0.2.0/24",)),
        ('relay.budget = "1m30s"', "relay.budget", 90.0),
        ('relay.max_message_size = "400KiB"', "relay.max_message_size", 409_600),
        ('mailman.lmtp = "unix:/run/mailman/lmtp.sock"', "mailman.lmtp", Endpoint(path="/run/mailman/lmtp.sock")),
        ("mailman.connections = 1", "mailman.connections", 1),
        ('mailman.queue_dir = "{0}"', "mailman.queue_dir", Path("{0}")),
        ('mailman.rest_url = ""', "mailman.rest_url", None),
        ('spool.min_free = "2GiB"', "spool.min_free", Share(octets=2 * GIB)),
        ('spool.min_free = "0.5 %"', "spool.min_free", Share(part=0.005)),
        ('spool.min_free = "0%"', "spool.min_free", Share()),
        ('limits.sender = "60/1h30m"\nverdict.listen = ["127.0.0.1:1"]', "limits.sender", Rate(60, 5400.0)),
        ('limits.network = ""', "limits.network", None),
        ("limits.ipv4_prefix = 32", "limits.ipv4_prefix", 32),
        ("replay.rate = 5", "replay.rate", 5.0),
        ("replay.rate = 0.5", "replay.rate", 0.5),
        ('spam = {{ engine = "rspamd", servers = ["127.0.0.1:11333"] }}', "spam.engine", "rspamd"),
        ('spam.servers = ["unix:/run/spamd.sock"]', "spam.servers", (Endpoint(path="/run/spamd.sock"),)),
        ('spam = {{ engine = "off", timeout = "60s" }}', "spam.timeout", 60.0),
        ("spam.tag_score = 2", "spam.tag_score", 2.0),
        ("spam.reject_score = 0", "spam.reject_score", 0.0),
        ('spam.skip_networks = ["192.0.2.9"]', "spam.skip_networks", ("192.0.2.9/32",)),
        ('spam.skip_recipients = ["Postmaster"]', "spam.skip_recipients", ("postmaster",)),
        ('policy.reject_after_acceptance = "discard"', "policy.reject_after_acceptance", "discard"),
        ('http.listen = "unix:{0}/http.sock"', "http.listen", Endpoint(path="{0}/http.sock")),
        ('log.format = "text"', "log.format", "text"),
    ],
)  # fmt: skip
def test_a_good_configuration(text: str, key: str, value: object, tmp_path: Path) -> None:
    file = tmp_path / "mailgate.toml"
    base = working(tmp_path).splitlines()
    kept = [line for line in base if line.split(" = ")[0] != key]
    file.write_text("\n".join([*kept, text.format(tmp_path)]), encoding="utf-8")
    result = check(file)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{file}: ok\n", "")
    found = keys(load(file))[key]
    assert repr(_plain(found)) == repr(_plain(value)).format(tmp_path)


def test_a_list_with_scores_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "mailgate.toml"
    file.write_text(working(tmp_path) + '[[spam.lists]]\nmatch = "private-*@lists.test"\nhold_score = 0\n')
    assert check(file).exit_code == 0
    own = load(file).spam.lists[0]
    assert (own.match, own.tag_score, own.hold_score, own.reject_score) == ("private-*@lists.test", None, 0.0, None)


def _plain(value: object) -> object:
    """Networks as text; the rest as it is."""
    if isinstance(value, tuple):
        return tuple(at if isinstance(at, Endpoint) else str(at) for at in value)
    return value


def test_the_file_is_found_by_the_environment(tmp_path: Path) -> None:
    file, other = tmp_path / "mailgate.toml", tmp_path / "other.toml"
    file.write_text(working(tmp_path), encoding="utf-8")
    other.write_text("nonsense = 1", encoding="utf-8")
    found = CliRunner().invoke(app, ["check-config"], env={"MAILGATE_CONFIG": str(file)})
    assert (found.exit_code, found.stdout) == (0, f"{file}: ok\n")
    assert check(file, MAILGATE_CONFIG=str(other)).exit_code == 0  # --config goes first


@pytest.mark.parametrize("value", [None, ""])
def test_without_either_it_is_the_one_in_etc(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAILGATE_CONFIG", raising=False)
    if value is not None:
        monkeypatch.setenv("MAILGATE_CONFIG", value)
    assert configuration.find(None) == Path("/etc/mailgate/mailgate.toml")


# what the parts of it say


@pytest.mark.parametrize(
    ("at", "said"),
    [
        (Endpoint("127.0.0.1", 8025), "127.0.0.1:8025"),
        (Endpoint("::1", 8025), "[::1]:8025"),
        (Endpoint(path="/run/mailgate/lmtp.sock"), "unix:/run/mailgate/lmtp.sock"),
    ],
)
def test_an_address_is_said_as_it_is_written(at: Endpoint, said: str) -> None:
    assert str(at) == said
    assert endpoint(said) == at


def test_a_share_of_a_disk() -> None:
    assert [Share(part=0.05).of(1000), Share(octets=70).of(1000), Share().of(1000)] == [50, 70, 0]


def test_the_spools_file() -> None:
    assert Config().spool.path == Path("/var/lib/mailgate/spool.db")


# the shipped file and the defaults


def test_the_defaults() -> None:
    found = {key: _plain(value) for key, value in keys(Config()).items()}
    assert found.pop("hostname") == socket.getfqdn()
    assert found == DEFAULTS


def test_the_shipped_file_changes_nothing() -> None:
    assert load(SHIPPED) == Config()


def test_the_shipped_file_shows_every_key_with_its_default() -> None:
    tree = tomllib.loads(COMMENTED_KEY.sub("", SHIPPED.read_text(encoding="utf-8")))
    assert tree.pop("hostname") == "lists.example.org"
    shown = {f"{section}.{key}" for section, pairs in tree.items() for key in pairs}
    assert shown == set(DEFAULTS)
    assert parse(tree) == Config()


def test_every_key_of_the_shipped_file_has_a_comment_of_its_own_or_shares_one() -> None:
    paragraphs = SHIPPED.read_text(encoding="utf-8").split("\n\n")
    for paragraph in paragraphs:
        if COMMENTED_KEY.search(paragraph):
            assert paragraph.startswith("# "), paragraph


LESS_TIME = "(spam.timeout, and a second to write the verdict down): a slow scorer is given less time where Exim asks"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '[relay]\ntrusted_peers = ["192.0.2.7/24", "2001:db8::/32", "::1"]',
            "relay.trusted_peers: 192.0.2.7/24 is all of 192.0.2.0/24: write that, or 192.0.2.7 if it alone is meant",
        ),
        (
            '[spam]\nskip_networks = ["10.0.0.7/8"]',
            "spam.skip_networks: 10.0.0.7/8 is all of 10.0.0.0/8: write that, or 10.0.0.7 if it alone is meant",
        ),
        (
            '[spam]\ntimeout = "20s"\n[verdict]\nlisten = ["127.0.0.1:11333"]',
            "verdict.budget: shorter than 21s " + LESS_TIME,
        ),
        (
            '[verdict]\nlisten = ["127.0.0.1:11333"]\nbudget = "10500ms"',
            "verdict.budget: shorter than 11s " + LESS_TIME,
        ),
        ('[verdict]\nlisten = ["127.0.0.1:11333"]\nbudget = "11s"', None),
        (
            "[spam]\ntag_score = 7.0",
            "spam.tag_score: above spam.reject_score: nothing is tagged that is not rejected, too",
        ),
        ("[relay]\nxclient = true", "relay.xclient: it has no effect: relay.smtp names no address"),
        (
            "[relay]\nproxy_protocol = true",
            "relay.proxy_protocol: it has no effect: relay.smtp names no address",
        ),
        ('[relay]\nsmtp = ["127.0.0.1:8026"]\nxclient = true\nproxy_protocol = true', None),
        ('[relay]\nclient_secret_file = "%s"', "relay.client_secret_file: everybody on this host can read %s"),
        ('[spam]\ntimeout = "20s"\ntag_score = 6.0', None),
    ],
)
def test_what_is_hardly_meant_is_remarked_upon(tmp_path: Path, text: str, said: str | None) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    file = tmp_path / "mailgate.toml"
    file.write_text(text.replace("%s", str(secret)) + f'\n[spool]\nurl = "sqlite:///{tmp_path}/spool.db"\n')
    found = check(file)
    assert found.exit_code == 0
    assert found.stderr == (f"mailgate: {said.replace('%s', str(secret))}\n" if said else "")
