"""The relays that are compared: Postfix as a synchronous proxy, Postfix with its durable queue, mailgate; and none.

Each is a context manager that starts the relay on ports of its own in a directory of its own, yields it when it is
ready, and ends it with its sink.
"""

import os
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.load import Sink
from bench.meter import Meter
from bench.parts import POSTFIX
from bench.process import Program, free_port, greets


@dataclass(frozen=True)
class Relay:
    """A running relay: where it listens, and where its mail must be looked for."""

    name: str
    protocol: str
    port: int
    meter: Meter | None
    sink: Sink | None
    """Where its mail goes; None: it has to keep it."""
    upstream: int = 0
    """The port where it would deliver, when it has to keep its mail: nobody listens there."""
    http: int = 0
    """mailgate's [http] port."""

    def kept(self) -> int:
        """How many messages mailgate says are in its spool, whatever their state."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        return round(sum(float(value) for value in re.findall(r"(?m)^mailgate_spool_messages\{[^}]*\} (\S+)", text)))


@contextmanager
def straight() -> Iterator[Relay]:
    """No relay: the load goes straight to the sink. The ceiling of what the bench itself can do."""
    with Sink("lmtp") as sink:
        yield Relay("(no relay)", "lmtp", sink.port, None, sink)


# What both Postfix relays share: the unpacked programs, loopback, and Debian's defaults for all that has to do with
# speed. master(8) cleans the environment of the daemons, hence import_environment for the libraries.
_MAIN_CF = """\
compatibility_level = 3.6
command_directory = {root}/usr/sbin
daemon_directory = {root}/usr/lib/postfix/sbin
shlib_directory = {root}/usr/lib/postfix
meta_directory = {root}/etc/postfix
sendmail_path = {root}/usr/sbin/sendmail
mailq_path = {root}/usr/sbin/sendmail
newaliases_path = {root}/usr/sbin/sendmail
html_directory = no
readme_directory = no
import_environment = LD_LIBRARY_PATH={root}/usr/lib/postfix MAIL_CONFIG={directory}/etc
queue_directory = {directory}/spool
data_directory = {directory}/data
maillog_file = {directory}/maillog
maillog_file_prefixes = {directory}
mail_owner = postfix
setgid_group = postdrop
myhostname = mx.lists.test
mydestination =
alias_maps =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_recipient_restrictions = permit_mynetworks, reject
relay_domains = lists.test
relay_transport = lmtp:inet:[127.0.0.1]:{sink}
"""

_MASTER_CF = """\
127.0.0.1:{port} inet n - n - - smtpd {options}
cleanup   unix n - n - 0 cleanup
qmgr      unix n - n 300 1 qmgr
rewrite   unix - - n - - trivial-rewrite
bounce    unix - - n - 0 bounce
defer     unix - - n - 0 bounce
trace     unix - - n - 0 bounce
verify    unix - - n - 1 verify
proxymap  unix - - n - - proxymap
lmtp      unix - - n - - lmtp
error     unix - - n - - error
retry     unix - - n - - error
anvil     unix - - n - 1 anvil
scache    unix - - n - 1 scache
postlog   unix-dgram n - n - 1 postlogd
"""


@contextmanager
def postfix_proxy(directory: Path) -> Iterator[Relay]:
    """`smtpd_proxy_filter`: nothing is queued, the 250 is the sink's own."""
    with Sink("smtp") as sink, _postfix(directory, sink, f"-o smtpd_proxy_filter=127.0.0.1:{sink.port}") as relay:
        yield relay


@contextmanager
def postfix_queue(directory: Path) -> Iterator[Relay]:
    """The durable queue: 250 when the queue file is synced, delivery to the sink at the same time."""
    with Sink("lmtp") as sink, _postfix(directory, sink, "") as relay:
        yield relay


@contextmanager
def _postfix(directory: Path, sink: Sink, smtpd_options: str) -> Iterator[Relay]:
    port = free_port()
    for name in ("etc", "spool", "data"):
        (directory / name).mkdir(parents=True)
    shutil.chown(directory / "data", "postfix")
    etc = directory / "etc"
    (etc / "main.cf").write_text(_MAIN_CF.format(root=POSTFIX, directory=directory, sink=sink.port))
    (etc / "master.cf").write_text(_MASTER_CF.format(port=port, options=smtpd_options))
    libraries = {"LD_LIBRARY_PATH": f"{POSTFIX}/usr/lib/postfix"}
    log = directory / "maillog"
    # makes the queue's directories; its complaints about set-gid programs do not matter here
    check = [f"{POSTFIX}/usr/sbin/postfix", "-c", str(etc), "check"]
    with log.open("ab") as output:
        subprocess.run(check, check=True, env={**os.environ, **libraries}, stdout=output, stderr=output)
    # master itself and not `postfix start-fg`: the signal that ends it must reach it, not a shell in front of it
    master = [f"{POSTFIX}/usr/lib/postfix/sbin/master", "-c", str(etc), "-s"]
    with Program(directory.name, master, log, libraries) as program:
        program.wait_ready(lambda: greets(port))
        yield Relay("Postfix", "smtp", port, program.meter, sink)


_MAILGATE_TOML = """\
hostname = "lists.test"
[relay]
lmtp = ["127.0.0.1:{port}"]
[mailman]
lmtp = "127.0.0.1:{upstream}"
probe_interval = "1s"
[spam]
engine = "off"
[auth]
spf = false
dkim = false
dmarc = false
arc = false
[spool]
url = "sqlite:///{directory}/spool.db"
[history]
keep = "{history}"
[http]
listen = "127.0.0.1:{http}"
[log]
level = "warning"
"""


@contextmanager
def mailgate_passing(directory: Path, command: Path, *, history: bool = False) -> Iterator[Relay]:
    """The relay alone, or with its history of each message. The sink is in Mailman's place."""
    with Sink("lmtp") as sink, _mailgate(directory, command, sink.port, sink, history=history) as relay:
        yield relay


@contextmanager
def mailgate_spooling(directory: Path, command: Path) -> Iterator[Relay]:
    """Nobody is in Mailman's place."""
    with _mailgate(directory, command, free_port(), None) as relay:
        yield relay


@contextmanager
def _mailgate(
    directory: Path, command: Path, upstream: int, sink: Sink | None, *, history: bool = False
) -> Iterator[Relay]:
    directory.mkdir()
    port, http = free_port(), free_port()
    configuration = directory / "mailgate.toml"
    keep = "14d" if history else "0s"
    text = _MAILGATE_TOML.format(port=port, upstream=upstream, directory=directory, http=http, history=keep)
    configuration.write_text(text)
    serve = [str(command), "serve", "--config", str(configuration)]
    with Program(directory.name, serve, directory / "log") as program:
        program.wait_ready(lambda: _is_ready(http))
        yield Relay("mailgate, history" if history else "mailgate", "lmtp", port, program.meter, sink, upstream, http)


def _is_ready(http: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{http}/readyz", timeout=5):
            return True
    except OSError:  # refused, or an HTTP error status: urllib's errors are OSErrors
        return False
