"""The real Exim at a verdict door of this process, by both variants of its protocol: does it read what we mean, and is
what we judge octet by octet what it was given?
"""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import dkim
import pytest

from mailgate import config as configuration
from mailgate.core import headers
from mailgate.core.envelope import Client, Envelope
from mailgate.core.message import Message
from mailgate.core.scan import Scored
from mailgate.core.spam import exim_int, over, score_and_bar
from mailgate.edge.verdictport import VerdictPort
from mailgate.relay import new_gate_id
from mailgate.verdict import VerdictDoor
from tests.spam.kit import Watched
from tests.spam.test_exim_parity import SCORES
from tests.stack.children import account, me, remove, temporary_directory
from tests.stack.exim import PROGRAM
from tests.stack.loop import Loop
from tests.stack.mails import Mail, dns, mails
from tests.stack.ports import Port
from tests.verdict.test_own_faults import Records
from tests.whole.passage import as_posted, field_in_front

Variant = Literal["rspamd", "stock"]
CLIENT = "127.9.8.7"
CONFIGURATION = r"""
exim_user = {user}
exim_group = {group}
spool_directory = {directory}/spool
log_file_path = {directory}/log/%slog
primary_hostname = mx.lists.test
deliver_drop_privilege = true
keep_environment =
host_lookup =
rfc1413_query_timeout = 0s
helo_allow_chars = _
queue_only = true
accept_8bitmime = true
smtputf8_advertise_hosts = *
message_size_limit = 40M
spamd_address = 127.0.0.1 {port} {options} tmo=20s
acl_smtp_rcpt = accept
acl_smtp_data = acl_check_data
begin acl
acl_check_data:
  warn  set acl_m_spam = false
  warn  spam = mailgate
        set acl_m_spam = true
  warn  spam = mailgate:true
        set acl_m_report = ${{if match{{$spam_report}}{{\N(?m)^ ?Message: (.*)$\N}}{{$1}}}}
  deny  log_message = Read: $acl_m_spam/$spam_action/$spam_score_int/$spam_score ($spam_bar)/$acl_m_report
begin routers
begin transports
"""
READ = re.compile(r" Read: (\w+)/([a-z ]*)/(-?\d+)/([^/]+ \(.[^)]*\))/(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Seen:
    """A message as the scorer was shown it."""

    envelope: Envelope
    message: Message
    client: Client

    @property
    def octets(self) -> bytes:
        """All of it, without the Received that Exim puts in front."""
        return field_in_front(b"".join(self.message.chunks), "Received")[1]


class Wished:
    """A scanner that gives each message the score that it wishes for."""

    available = True

    def __init__(self) -> None:
        self.seen: list[Seen] = []

    async def scan(self, envelope: Envelope, message: Message, client: Client, *_: object) -> Scored:
        self.seen.append(Seen(envelope, message, client))
        return Scored(float(headers.first(message.head, b"x-wished") or 0), 5.0, "Message: 250 forged", "here")


class Site:
    """An Exim that is run for each session, and the door that it asks."""

    def __init__(self, variant: Variant) -> None:
        self.directory = temporary_directory("mailgate-verdict-")
        self.directory.chmod(0o755)
        self.port, self.loop = Port(), Loop("verdict")
        self.scanner, self.records, self.telemetry = Wished(), Records(), Watched()
        self._drop = account("Debian-exim")
        owner = self._drop or me()
        for folder in ("spool", "log"):
            (self.directory / folder).mkdir()
        owner.own(self.directory, self.directory / "spool", self.directory / "log")
        self._config = self.directory / "exim4.conf"
        text = CONFIGURATION.format(
            user=owner.name,
            group=owner.gid,
            directory=self.directory,
            port=self.port.number,
            options="variant=rspamd" if variant == "rspamd" else "",
        )
        self._config.write_text(text)
        config = configuration.parse({"hostname": "gate.lists.test", "verdict": {"listen": [str(self.port)]}})
        story = VerdictDoor(config, self.scanner, self.records, self.telemetry, new_gate_id)
        self._door = self.loop.run(_opened(VerdictPort(config, story.judge, story.turn_away, self.telemetry)))

    def session(self, *posts: Mail) -> list[tuple[str, str, int, str, str]]:
        """Post these; of each whether `spam =` was true, and what Exim read: action, tenths, score and bar, message."""
        launcher = self._drop.launcher() if self._drop else []
        done = subprocess.run(
            [*launcher, PROGRAM, "-C", self._config, "-oMa", CLIENT, "-bs"],
            input=b"EHLO mx_1.example.net\r\n" + b"".join(map(_said, posts)) + b"QUIT\r\n",
            capture_output=True, timeout=60, check=True, cwd=self.directory,
        )  # fmt: skip
        logs = [path.read_text() for path in sorted((self.directory / "log").glob("*log"))]
        found = READ.findall("\n".join(logs))[-len(posts) :]
        assert done.stdout.count(b"\n550 ") == len(found) == len(posts), "\n".join([done.stdout.decode(), *logs])
        return [(spam, action, int(tenths), text, said) for spam, action, tenths, text, said in found]

    def close(self) -> None:
        """Take it down."""
        self.loop.run(self._door.stop())
        self.loop.close()
        self.port.close()
        remove(self.directory)


async def _opened(door: VerdictPort) -> VerdictPort:
    await door.start()
    return door


def _said(mail: Mail) -> bytes:
    people = "".join(f"RCPT TO:<{recipient}>\r\n" for recipient in mail.recipients)
    data = re.sub(rb"(?m)^\.", b"..", mail.octets)
    return (
        f"MAIL FROM:<{mail.sender}> {mail.parameters}".rstrip().encode()
        + b"\r\n"
        + people.encode()
        + b"DATA\r\n"
        + data
        + b".\r\n"
    )


@contextmanager
def _site(variant: Variant) -> Iterator[Site]:
    site = Site(variant)
    try:
        yield site
    finally:
        site.close()


@pytest.fixture(scope="module")
def sites() -> Iterator[dict[Variant, Site]]:
    with _site("rspamd") as one, _site("stock") as other:
        yield {"rspamd": one, "stock": other}


@pytest.fixture(params=["rspamd", "stock"])
def variant(request: pytest.FixtureRequest) -> Variant:
    return request.param  # type: ignore[no-any-return]


def _wishing(score: str) -> Mail:
    octets = b"X-Wished: %s\r\nSubject: x\r\n\r\nHello.\r\n" % score.encode()
    return Mail(score, "", "ida@example.org", ("list@lists.test",), CLIENT, octets)


def test_exim_reads_every_score_as_we_do(sites: dict[Variant, Site], variant: Variant) -> None:
    site = sites[variant]
    for score, (spam, action, tenths, text, said) in zip(SCORES, site.session(*map(_wishing, SCORES)), strict=True):
        points = float(score)
        assert (tenths, text) == (exim_int(points), score_and_bar(points)), score
        assert spam == str(over(points, 1.0)).lower(), score
        rejected = over(points, 6.0)
        word = "reject" if rejected else "add header" if over(points, 1.0) else "no action"
        assert action == (word if variant == "rspamd" else "reject" if spam == "true" else "no action"), score
        assert bool(re.fullmatch(r"550 5\.7\.1 [0-9a-z]{18} taken for spam: it scores [\d.]+", said)) == rejected, score
        assert rejected or not said


def _posts() -> list[Mail]:
    plain = mails()["plain"]
    odd = Mail(
        "odd",
        "",
        "",
        ("a@lists.test", "b@lists.test"),
        CLIENT,
        b"X-Envelope-From: <x>\r\nFrom: a@b\r\n\r\nFrom me\r\n.\r\n",
    )
    return [*(mail.at("list@lists.test") for mail in mails().values()), plain.at("list@lists.test"), odd]


def test_what_is_judged_is_what_was_posted(sites: dict[Variant, Site], variant: Variant) -> None:
    """Every mail of fixtures/, signatures and line ends among them; the envelope and the client."""
    site, posts = sites[variant], _posts()
    site.scanner.seen.clear()
    site.session(*posts)
    assert len(site.scanner.seen) == len(posts)
    for mail, seen in zip(posts, site.scanner.seen, strict=True):
        assert seen.octets == as_posted(mail), mail
        assert (seen.envelope.sender, seen.envelope.recipients) == (mail.sender, mail.recipients), mail
        # The stock variant does not say who the client is: Exim's Received does.
        assert seen.client == Client(
            CLIENT, "mx_1.example.net", source="verdict" if variant == "rspamd" else "received"
        )


def test_a_dkim_signature_verifies_here(sites: dict[Variant, Site], variant: Variant) -> None:
    def txt(name: bytes, timeout: int = 5) -> bytes:
        return dns()[name.decode().rstrip(".")].encode()

    site = sites[variant]
    site.session(mails()["dkim"].at("list@lists.test"))
    octets = site.scanner.seen[-1].octets
    assert dkim.verify(octets, dnsfunc=txt)
    assert not dkim.verify(octets.replace(b"\r\nSubject: ", b"\r\nSubject: x"), dnsfunc=txt)


def test_the_record_is_kept_under_exims_id(sites: dict[Variant, Site], variant: Variant) -> None:
    site = sites[variant]
    site.records.kept.clear()
    site.session(_wishing("2"))
    [(exim_id, _)] = site.records.kept
    assert exim_id == headers.own_exim_id(site.scanner.seen[-1].message.head)
    assert exim_id


def test_no_door_is_no_verdict(variant: Variant) -> None:
    with _site(variant) as site:
        site.loop.run(site._door.stop())
        with pytest.raises(AssertionError, match="all spamd servers failed"):
            site.session(_wishing("9"))
