"""Side by side with the real Exim: for the same score the same decision, the same text of score and bar.

The ACL is the one that sites have had since before mailgate, with its thresholds as $spam_score_int; ours are the same
numbers in points. Exim takes the scores from a spamd of the test's, which says what the message asks it to.
"""

import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mailgate.config import parse
from mailgate.core import headers
from mailgate.core.facts import MessageFacts
from mailgate.core.rules import decide
from mailgate.core.scan import Scored
from mailgate.core.spam import exim_int, score_and_bar, thresholds
from mailgate.core.spam_fields import of_score
from mailgate.core.verdict import Action
from tests.stack.children import account, me, remove, temporary_directory
from tests.stack.exim import PROGRAM

SCORES = (
    *("-1000", "-52", "-51", "-50.9", "-3.2", "-1.05", "-1", "-0.99", "-0.4", "-0.06", "-0.04", "0", "0.04", "0.05"),
    *("0.15", "0.25", "0.9", "0.94", "0.95", "0.99", "0.9999", "1.0", "1.04", "1.049", "1.05", "1.09", "1.098"),
    *("1.099", "1.0999", "1.1", "1.15", "2.5", "4.0", "5.9", "5.99", "6.0", "6.04", "6.05", "6.09", "6.098", "6.099"),
    *("6.0999", "6.1", "7.25", "10", "49.9", "50", "50.99", "51", "51.9", "52", "99.95", "1000", "12345.67"),
)
CONFIGURATION = """
exim_user = {user}
exim_group = {group}
spool_directory = {directory}/spool
log_file_path = {directory}/log/%slog
primary_hostname = mx.lists.test
deliver_drop_privilege = true
keep_environment =
host_lookup =
queue_only = true
spamd_address = 127.0.0.1 {port}
acl_smtp_rcpt = accept
acl_smtp_data = acl_check_data
begin acl
acl_check_data:
  warn  spam = nonexistent:true/defer_ok
        condition = ${{if >{{$spam_score_int}}{{10}}}}
        set acl_m0 = tagged
  deny  message = Decision: rejected $spam_score_int $spam_score ($spam_bar)
        spam = nonexistent/defer_ok
        condition = ${{if >{{$spam_score_int}}{{60}}}}
  deny  message = Decision: tagged $spam_score_int $spam_score ($spam_bar)
        condition = ${{if eq{{$acl_m0}}{{tagged}}}}
  deny  message = Decision: passed $spam_score_int $spam_score ($spam_bar)
begin routers
begin transports
"""
DECISION = re.compile(r"^550[ -]Decision: (\w+) (-?\d+) (.*)$", re.MULTILINE)
POLICY = parse({"spam": {"tag_score": 1.0, "reject_score": 6.0}}).for_rules


@contextmanager
def spamd() -> Iterator[int]:
    """A spamd that gives each message the score it wishes for; its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_serve, args=(server,), name="wished-for-scores")
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)  # wakes accept
            thread.join(60)
            assert not thread.is_alive()


def _serve(server: socket.socket) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:  # shut down: the test is over
            return
        with connection, connection.makefile("rb") as question:
            connection.settimeout(10)
            wished = re.search(rb"^X-Wished: (\S+)", question.read(), re.MULTILINE)
            answer = b"%s/4.0\r\na line of report\r\n" % (wished[1] if wished else b"0")
            connection.sendall(b"SPAMD/1.1 0 EX_OK\r\nContent-length: %d\r\n\r\n%s" % (len(answer), answer))


def _session() -> str:
    mails = "".join(
        f"MAIL FROM:<ida@example.org>\nRCPT TO:<list@lists.test>\nDATA\nX-Wished: {score}\n\nHello.\n.\n"
        for score in SCORES
    )
    return f"EHLO client.example.net\n{mails}QUIT\n"


@pytest.fixture(scope="module")
def exims() -> Iterator[dict[str, tuple[str, int, str]]]:
    """What Exim makes of each score: the decision, $spam_score_int, and `$spam_score ($spam_bar)`."""
    drop = account("Debian-exim")
    owner = drop or me()
    directory = temporary_directory("mailgate-acl-")
    try:
        directory.chmod(0o755)
        configuration = directory / "exim4.conf"
        for folder in ("spool", "log"):
            (directory / folder).mkdir()
        owner.own(directory, directory / "spool", directory / "log")
        with spamd() as port:
            text = CONFIGURATION.format(user=owner.name, group=owner.gid, directory=directory, port=port)
            configuration.write_text(text)
            done = subprocess.run(
                [*(drop.launcher() if drop else []), PROGRAM, "-C", configuration, "-bs"],
                input=_session(), capture_output=True, text=True, timeout=60, check=True, cwd=directory,
            )  # fmt: skip
        found = DECISION.findall(done.stdout.replace("\r", ""))
        assert len(found) == len(SCORES), f"{done.stdout}\n{done.stderr}\n{_log(directory)}"
        yield {score: (word, int(tenths), text) for score, (word, tenths, text) in zip(SCORES, found, strict=True)}
    finally:
        remove(directory)


def _log(directory: Path) -> str:
    return "\n".join(path.read_text() for path in (directory / "log").glob("*log"))


def ours(score: str) -> tuple[str, int, str]:
    """The same three, of ours."""
    scan = Scored(float(score), 4.0, "", "")
    decision = decide(MessageFacts(0, bounded=True, recipients=("list@lists.test",), scan=scan), POLICY)
    words = {"spam-reject": "rejected", "spam-tag": "tagged"}
    word = words[decision.reasons[0]] if decision.reasons else "passed"
    assert (decision.action is Action.REJECT) == (word == "rejected")
    return word, exim_int(scan.score), score_and_bar(scan.score)


@pytest.mark.parametrize("score", SCORES)
def test_the_same_decision_and_the_same_text(exims: dict[str, tuple[str, int, str]], score: str) -> None:
    assert ours(score) == exims[score]


@pytest.mark.parametrize("score", SCORES)
def test_the_same_header_when_there_is_one(exims: dict[str, tuple[str, int, str]], score: str) -> None:
    word, _, text = exims[score]
    limits = thresholds(POLICY.spam, ["list@lists.test"])
    found = headers.first(of_score(Scored(float(score), 4.0, "", ""), limits), b"x-spam-score").decode()
    assert found == ("" if word == "passed" else text)


def test_exims_bar_has_up_to_51_characters(exims: dict[str, tuple[str, int, str]]) -> None:
    """One more than its documentation says; ours is as long."""
    for score, length in (("50", 50), ("51", 51), ("52", 51), ("12345.67", 51), ("-51", 51), ("-1000", 51)):
        assert len(exims[score][2].partition(" (")[2]) == length + len(")")


def test_all_three_decisions_are_among_them(exims: dict[str, tuple[str, int, str]]) -> None:
    assert {word for word, _, _ in exims.values()} == {"passed", "tagged", "rejected"}
