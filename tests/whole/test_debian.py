"""The drop-in of config/exim4 in the split configuration that Debian's exim4-config installs, put together by its
update-exim4.conf: nothing of Debian's is changed, and all of ours is there.
"""

import itertools
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack.client import Client, Result
from tests.stack.exim import CONFIG, Exim
from tests.stack.fake_scorer import FakeScorer
from tests.stack.mails import Mail, mails
from tests.stack.stack import Stack

_NUMBERS = itertools.count(1)
DEBIAN = Path("/etc/exim4")
# What debconf asks: https://manpages.debian.org/update-exim4.conf
ANSWERS = """
dc_eximconfig_configtype='internet'
dc_other_hostnames='mx.lists.test'
dc_local_interfaces='127.0.0.1'
dc_readhost=''
dc_relay_domains='lists.test'
dc_minimaldns='false'
dc_relay_nets=''
dc_smarthost=''
CFILEMODE='644'
dc_use_split_config='true'
dc_hide_mailname=''
dc_mailname_in_oh='true'
dc_localdelivery='mail_spool'
"""
# What the tests' Exim has of its own: a folder, a port, no root.
SITE = """
CONFDIR = {confdir}
SPOOLDIR = {state}/spool
CHECK_RCPT_LOCAL_ACL_FILE = {confdir}/mailgate_check_rcpt
CHECK_DATA_LOCAL_ACL_FILE = {confdir}/mailgate_check_data
MAIN_HARDCODE_PRIMARY_HOSTNAME = mx.lists.test
MAIN_HOST_LOOKUP =
log_file_path = {state}/log/%slog
pid_file_path = {state}/exim.pid
daemon_smtp_ports = {port}
deliver_drop_privilege = true
"""


class DebianExim(Exim):
    """An Exim with Debian's split configuration and our files in it."""

    def _write(self) -> None:
        confdir = self.directory / "etc"
        shutil.rmtree(confdir, ignore_errors=True)
        shutil.copytree(DEBIAN / "conf.d", confdir / "conf.d")
        shutil.copytree(CONFIG / "conf.d", confdir / "conf.d", dirs_exist_ok=True)
        for part in ("mailgate_check_rcpt", "mailgate_check_data"):
            shutil.copy(CONFIG / part, confdir)
        (confdir / "update-exim4.conf.conf").write_text(ANSWERS)
        ours = {name: value for name, value in (self._macros | self._extra).items() if name.startswith("MAILGATE_")}
        site = SITE.format(confdir=confdir, state=self.directory, port=self.port.number)
        site += "".join(f"{name} = {value}\n" for name, value in ours.items())
        (confdir / "conf.d" / "main" / "000_site").write_text(site)
        done = subprocess.run(
            ["update-exim4.conf", "--confdir", confdir, "--output", self._config],
            capture_output=True, text=True, check=False, timeout=60, cwd=self.directory,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, ""), done


@pytest.fixture
def exim(stack: Stack) -> Iterator[DebianExim]:
    """Such an Exim, in front of the stack's gate; not started."""
    one = DebianExim(stack.directory / f"debian-{next(_NUMBERS)}", stack.to_gate.address)
    try:
        yield one
    finally:
        print("\n".join(one.log_lines()))
        one.close()


def post(exim: Exim, mail: Mail) -> Result:
    """Give it a mail."""
    with Client(exim.address, source=mail.client) as client:
        return client.deliver(mail.sender, mail.recipients, mail.octets)


def test_mail_flows_and_what_is_refused_is_refused_in_the_session(stack: Stack, exim: DebianExim, a_list: str) -> None:
    exempt = stack.new_list()
    with FakeScorer("rspamd") as fake:
        spam = {"engine": "rspamd", "servers": [str(fake.port)], "reject_score": 7.1, "skip_recipients": [exempt]}
        gate = stack.start_gate({"spam": spam}, asked=True)
        exim.set(stack.exim.macros)
        exim.start()
        [reply] = post(exim, mails()["plain"].at(a_list).marked("debian-refused")).final
        assert re.fullmatch(r"550 5\.7\.1 [0-9a-z]{18} taken for spam: it scores 7\.2", str(reply))
        assert (exim.queue(), exim.bounces()) == ([], [])

        mail = mails()["plain"].at(exempt).marked("debian-exempt")
        assert post(exim, mail).codes == [250]
        stack.mailman.wait_arrived(exempt, mail.message_id)
        told = gate.wait_for_event("message.delivered", message_id=mail.message_id)
        assert (told["client"], bool(told["verdict_id"])) == (mail.client, True)


def test_without_the_macro_nobody_is_asked(stack: Stack, exim: DebianExim, a_list: str) -> None:
    stack.start_gate()
    exim.start()
    mail = mails()["plain"].at(a_list).marked("debian-unasked")
    assert post(exim, mail).codes == [250]
    stack.mailman.wait_arrived(a_list, mail.message_id)
    [line] = exim.wait_for_log("=> ")
    assert re.search(r"R=mailgate_router T=mailgate_transport .* C=\"250 2\.0\.0 [0-9a-z]{18} delivered: Ok\"", line)
    assert not exim.log_lines("spam acl condition")


def test_a_list_that_does_not_exist_is_refused_in_the_session(stack: Stack, exim: DebianExim, a_list: str) -> None:
    host, port = stack.mailman.address
    exim.set({"MAILGATE_MAILMAN_HOST": host, "MAILGATE_MAILMAN_PORT": port})
    exim.start()
    # From elsewhere: mail of dc_relay_nets, where 127.0.0.1 is always in, is accepted by Debian before our part.
    with Client(exim.address, source="127.9.8.7") as client:
        assert client.command("MAIL FROM:<ida@example.org>").code == 250
        asked = ("nosuch@lists.test", a_list, a_list.replace("@", "-owner@"), "postmaster@lists.test")
        first, *others = [str(client.command(f"RCPT TO:<{recipient}>")) for recipient in asked]
    assert first == "550 5.1.1 there is no such list here"
    assert others == ["250 Accepted"] * 3
