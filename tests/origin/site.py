"""A real Exim whose clients come from everywhere, with junk in HELO, TLS and passwords; a recorder; a gate."""

import shutil
import smtplib
import ssl
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from mailgate.core import headers
from mailgate.core.envelope import Client as Known
from mailgate.core.origin import Origin, origin
from tests.edge.pair import Pair, mail
from tests.stack.children import account
from tests.stack.client import Reply
from tests.stack.exim import PROGRAM, Exim
from tests.stack.gate import merged
from tests.stack.wire import Recorder

LIST = "list@lists.test"
SECRET = b"0f" * 32
PASSWORD = "open sesame"
# What config/exim4/exim4.conf says once, said otherwise.
OTHERWISE = {
    "tls_advertise_hosts =\n": "tls_advertise_hosts = *\ntls_certificate = {0}/cert.pem\ntls_privatekey = {0}/key.pem\n"
    "helo_accept_junk_hosts = *\ntrusted_users = Debian-exim : {1}\n",
}
AUTHENTICATORS = """
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${if eq{$auth3}{open sesame}}
  server_set_id = $auth2
  server_advertise_condition = true
"""


class Site:
    """Exim → recorder → gate → a Mailman that takes all. Exim signs its header, and the gate knows the secret."""

    def __init__(self, settings: Mapping[str, Any], undo: ExitStack, *, asked: bool) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="mailgate-origin-"))
        undo.callback(shutil.rmtree, self.directory)
        self.directory.chmod(0o711)
        secret = self.directory / "secret"
        secret.write_bytes(SECRET + b"\n")
        own = {"relay": {"client_secret_file": str(secret)}}
        self.pair = Pair()
        undo.callback(self.pair.close)
        host, port = self.pair.gate.verdict
        if asked:
            own |= {"verdict": {"listen": [f"{host}:{port}"]}}  # type: ignore[dict-item]
        self.pair.configure(merged(own, settings))
        self.gate, self.fake = self.pair.gate, self.pair.fake
        self.gate.start()
        self.wire = Recorder(self.gate.lmtp)
        undo.callback(self.wire.close)
        self.exim = Exim(self.directory / "exim", self.wire.address)
        undo.callback(self.exim.close)
        self._certify()
        macros: dict[str, object] = {"SMTP_INTERFACE": "<; 127.0.0.1 ; ::1", "MAILGATE_SECRET_FILE": secret}
        if asked:
            macros["MAILGATE_VERDICT"] = f"{host} {port}"
        self.exim.set(macros, AUTHENTICATORS)
        self.exim.start()
        self._sent = 0

    def _certify(self) -> None:
        config = self.exim.directory / "config" / "exim4.conf"
        text = config.read_text()
        drop = account("Debian-exim")
        for said, instead in OTHERWISE.items():
            assert said in text
            text = text.replace(said, instead.format(self.exim.directory, drop.name if drop else "root"))
        config.write_text(text)
        files = ["-keyout", str(self.exim.directory / "key.pem"), "-out", str(self.exim.directory / "cert.pem")]
        names = ["-subj", "/CN=mx.lists.test", "-days", "2"]
        made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        subprocess.run([*made, *files, *names], check=True, capture_output=True, timeout=60)
        (self.exim.directory / "key.pem").chmod(0o644)

    def message(self, head: bytes = b"") -> tuple[str, bytes]:
        """A message of its own, with these fields in front."""
        self._sent += 1
        message_id = f"<{self._sent}@example.net>"
        return message_id, head + mail(message_id)

    def post(
        self, source: str, helo: str = "mx.example.net", *, tls: bool = False, user: str = "", head: bytes = b""
    ) -> str:
        """A message of a client at that address; its Message-ID."""
        message_id, octets = self.message(head)
        host = "::1" if ":" in source else "127.0.0.1"
        with smtplib.SMTP(host, self.exim.port.number, helo, 20, (source, 0)) as client:
            if tls:
                client.starttls(context=ssl._create_unverified_context())
            if user:
                client.login(user, PASSWORD)
            client.sendmail("ida@example.org", [LIST], octets)
        return message_id

    def inject(self, *arguments: str, smtp: str = "", head: bytes = b"") -> str:
        """A message from a program on Exim's host, by Exim's command line (and its SMTP, with that HELO)."""
        message_id, octets = self.message(head)
        if smtp:
            lines = f"EHLO {smtp}\r\nMAIL FROM:<ida@example.org>\r\nRCPT TO:<{LIST}>\r\nDATA\r\n".encode()
            octets = lines + octets + b".\r\nQUIT\r\n"
        drop = account("Debian-exim")
        argv = [*(drop.launcher() if drop else []), PROGRAM, "-C", str(self.exim._config), "-odf", *arguments]
        subprocess.run(argv, input=octets, check=True, capture_output=True, timeout=60, cwd=self.exim.directory)
        return message_id

    def told(self, message_id: str) -> Known:
        """Whom the gate took the message to be from."""
        event = self.gate.wait_for_event("message.delivered", message_id=message_id)
        said = {key: event.get(key, "") for key in ("helo", "host", "user", "tls")}
        return Known(event["client"], source=event["origin"], **said)

    def written(self, message_id: str) -> bytes:
        """The header block as Exim handed it over."""
        return self.wire.wait_for(message_id).octets.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"

    def by_received(self, message_id: str) -> Origin:
        """Whom the message is from by its Received alone."""
        return origin(headers.cut(self.written(message_id), "gate.lists.test"))

    def hand_over(self, head: bytes) -> str:
        """A message with this header block, straight to the gate, as a program that is no Exim might; its gate id."""
        with self.pair.client() as client:
            (reply,) = client.deliver("ida@example.org", [LIST], head + b"A line.\r\n").final
        return gate_id(reply)


def gate_id(reply: Reply) -> str:
    """The gate id in a reply."""
    return reply.text.split()[1]


@contextmanager
def open_site(settings: Mapping[str, Any] | None = None, *, asked: bool = False) -> Iterator[Site]:
    """A site, running. `asked`: Exim asks at the verdict door, too."""
    with ExitStack() as undo:
        yield Site(settings or {}, undo, asked=asked)
