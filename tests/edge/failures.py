"""Every way in which Mailman's LMTP server can fail, and what must come of it. Data; test_mailman_failures.py plays it.

`told` is what the client hears for each recipient, `kept` what the spool then says of it, `arrives` how often Mailman
has taken it in the end, when it behaves again. `…` stands for the gate id.
"""

from dataclasses import dataclass, field, replace

from tests.stack.fake_script import Act, Stage, Then, drop, hang, say
from tests.stack.fake_session import Manner

DELIVERED = "250 2.0.0 … delivered: Ok"
SPOOLED = "250 2.0.0 … spooled"
PENDING, UNCERTAIN, GONE, FAILED = "pending", "uncertain", "", "failed"
NO_MAILBOX = "550 Requested action not taken: mailbox unavailable"
NO_SUCH_LIST = "550 5.1.1 … Requested action not taken: mailbox unavailable"
DATABASE = "500 Error: (OperationalError) database is locked"

A, B, C = "a@lists.test", "b@lists.test", "c@lists.test"
RESET = Act(lines=0, then=Then.RESET)


@dataclass(frozen=True)
class On:
    """What the fake Mailman is told."""

    stage: Stage
    act: Act
    only: str = ""
    times: int | None = None


@dataclass(frozen=True)
class Row:
    """One failure. `kept` is what the spool says right after the reply; "" for nothing."""

    name: str
    script: tuple[On, ...]
    told: tuple[str, ...]
    kept: tuple[str, ...]
    arrives: tuple[int, ...]
    sender: str = "bob@example.net"
    recipients: tuple[str, ...] = (A, B, C)
    parameters: str = ""
    body: bytes = b"A line.\r\n"
    manner: Manner = field(default_factory=Manner)
    refused: bool = False  # nobody listens
    ends: str = "delivered"  # what the spool says of those that it kept, in the end
    upstream: str = "*"  # what must stand behind MAIL FROM:<...> at Mailman

    def __post_init__(self) -> None:
        assert len(self.told) == len(self.kept) == len(self.arrives) <= len(self.recipients)

    @property
    def to(self) -> tuple[str, ...]:
        """Its recipients."""
        return self.recipients[: len(self.told)]


def temporary(name: str, *script: On, recipients: int = 2, refused: bool = False) -> Row:
    """Nothing was taken, surely: spooled, and delivered once when Mailman is well."""
    n = recipients
    return Row(name, script, (SPOOLED,) * n, (PENDING,) * n, (1,) * n, refused=refused)


def doubtful(name: str, act: Act, arrives: int, recipients: int = 2) -> Row:
    """After the dot, once: Mailman may have it (`arrives` 2) or may not (1). Spooled as uncertain."""
    n = recipients
    return Row(name, (On(Stage.DOT, act, times=1),), (SPOOLED,) * n, (UNCERTAIN,) * n, (arrives,) * n)


def _before_the_dot() -> list[Row]:
    """At each stage: silence, hanging up, a reset, what is no reply, and replies that say nothing about the mail."""
    rows = [temporary("refused", refused=True)]
    garbage = Act(raw=b"\x00\xffwhat?\r\n")
    half = Act(octets=5, then=Then.CLOSE)
    faults = {"silence": hang(), "drop": drop(), "reset": RESET, "garbage": garbage, "half a line": half}
    replies = {
        Stage.GREETING: ("421 later", "554 no"),
        Stage.LHLO: ("421 later", "500 no", "550 no"),
        Stage.MAIL: ("421 4.3.2 later", "451 not now", "500 no", "503 Error: nested MAIL command", "550 no"),
        Stage.RCPT: ("421 later", "450 busy", "451 Requested action aborted", "500 no", "501 no", "503 no", "554 no"),
        Stage.DATA: ("421 later", "250 what?", "451 not now", "500 no", "503 no", "554 no", DATABASE),
    }
    for stage, lines in replies.items():
        rows += [temporary(f"{stage}: {name}", On(stage, act)) for name, act in faults.items()]
        rows += [temporary(f"{stage}: {line}", On(stage, say(line))) for line in lines]
    endless = Act(raw=b"250-" + b"x" * 70000)
    many = Act(instead=("250-more",) * 200)
    rows += [
        temporary("LHLO: endless line", On(Stage.LHLO, endless)),
        temporary("LHLO: 200 lines", On(Stage.LHLO, many)),
    ]
    return rows


def _in_the_body() -> list[Row]:
    """A small message is sent with its dot in one piece: when the connection breaks then, nobody knows.
    Large ones are test_breaking_in_the_body's.
    """
    small = ((SPOOLED,) * 2, (UNCERTAIN,) * 2, (1, 1))
    return [
        Row("body: drop behind 354", (On(Stage.DATA, Act(then=Then.CLOSE), times=1),), *small),
        Row("body: reset behind 354", (On(Stage.DATA, Act(then=Then.RESET), times=1),), *small),
        temporary("body: a reply that nobody asked for", On(Stage.DATA, Act(raw=b"354 go on\r\n250 Ok\r\n"))),
        doubtful("body: taken in and never answered", Act(lines=0, then=Then.HANG, took=False), 1),
    ]  # fmt: skip


def _after_the_dot() -> list[Row]:
    first_of_three = (DELIVERED, SPOOLED, SPOOLED)
    one_known = (GONE, UNCERTAIN, UNCERTAIN)
    raw = b"250 Ok\r\n\xffwhat?\r\n"

    def dot(act: Act, only: str = "", times: int | None = 1) -> tuple[On, ...]:
        return (On(Stage.DOT, act, only, times),)

    return [
        doubtful("dot: silence, taken", Act(lines=0, then=Then.HANG, took=True), 2),
        doubtful("dot: silence, not taken", Act(lines=0, then=Then.HANG, took=False), 1),
        doubtful("dot: drop, taken", Act(lines=0, then=Then.CLOSE, took=True), 2),
        doubtful("dot: drop, not taken, alone", Act(lines=0, then=Then.CLOSE, took=False), 1, 1),
        doubtful("dot: reset, taken", Act(lines=0, then=Then.RESET, took=True), 2, 3),
        doubtful("dot: garbage, taken", Act(raw=b"\x00\xffwhat?\r\n", took=True), 2),
        doubtful("dot: half a line", Act(octets=4, then=Then.CLOSE, took=True), 2, 1),
        doubtful("dot: half a line, then silence", Act(octets=4, then=Then.HANG, took=True), 2),
        Row("dot: 1 of 3, then silence", dot(Act(lines=1, then=Then.HANG)), first_of_three, one_known, (1, 2, 2)),
        Row("dot: 1 of 3, then drop", dot(Act(lines=1, then=Then.CLOSE)), first_of_three, one_known, (1, 2, 2)),
        Row("dot: 1 of 3, then reset", dot(Act(lines=1, then=Then.CLOSE)), first_of_three, one_known, (1, 2, 2)),
        Row("dot: 1 of 3, and no more", dot(Act(lines=1)), first_of_three, one_known, (1, 2, 2)),
        Row("dot: 1 of 3 and a half", dot(Act(octets=12, then=Then.CLOSE)), first_of_three, one_known, (1, 2, 2)),
        Row("dot: 1 of 3, then garbage", dot(Act(raw=raw, took=True)), first_of_three, one_known, (1, 2, 2)),
        Row("dot: all, then drop", dot(Act(then=Then.CLOSE)), (DELIVERED,) * 3, (GONE,) * 3, (1, 1, 1)),
        Row("dot: mixed, then drop", dot(Act(instead=("250 Ok", "451 no"), then=Then.CLOSE)),
            (DELIVERED, SPOOLED), (GONE, PENDING), (1, 1)),
        Row("dot: one too many", dot(Act(extra=("250 Ok",))), (DELIVERED,) * 2, (GONE,) * 2, (1, 1)),
        doubtful("dot: one too many, mixed", Act(raw=b"250 Ok\r\n451 no\r\n250 Ok\r\n", took=True), 2),
        Row("dot: slow", dot(Act(pause=0.3)), (DELIVERED,) * 3, (GONE,) * 3, (1, 1, 1)),
        Row("dot: 451 for one of three", dot(say("451 Requested action aborted"), only=B),
            (DELIVERED, SPOOLED, DELIVERED), (GONE, PENDING, GONE), (1, 1, 1)),
        Row("dot: 421 for all", dot(say("421 later", "421 later")), (SPOOLED,) * 2, (PENDING,) * 2, (1, 1)),
        Row("dot: full disk", dot(say(NO_MAILBOX)), (SPOOLED,), (PENDING,), (1,)),
        Row("dot: full disk, for three", dot(say(*(NO_MAILBOX,) * 3)), (SPOOLED,) * 3, (PENDING,) * 3, (1, 1, 1)),
        Row("dot: full disk, for one of three", dot(say(NO_MAILBOX), only=C),
            (DELIVERED, DELIVERED, SPOOLED), (GONE, GONE, PENDING), (1, 1, 1)),
        Row("dot: 554 for one", dot(say("554 no")), (SPOOLED,), (PENDING,), (1,)),
        doubtful("dot: exception", Act(instead=(DATABASE,), took=True), 2, 1),
        doubtful("dot: exception, for three", Act(instead=(DATABASE,), took=True), 2, 3),
    ]  # fmt: skip


def _about_the_message() -> list[Row]:
    """Replies that are believed: nothing is spooled, and the sender hears of it."""
    defects, long_line, large = (
        "501 Message has defects",
        "500 Line too long (see RFC5321 4.5.3.1.6)",
        "552 Error: Too much mail data",
    )
    long_body = b"x" * 10_000 + b"\r\n"
    unsized = Manner(extensions=("8BITMIME", "HELP"))

    def refusal(name: str, reply: str, line: str, n: int, body: bytes = b"A line.\r\n") -> Row:
        script = () if body == long_body else (On(Stage.DOT, say(line)),)
        return Row(name, script, (reply,) * n, (GONE,) * n, (0,) * n, body=body, manner=unsized)

    return [
        refusal("message: defects", "501 5.6.0 … Message has defects", defects, 1),
        Row("message: defects, one reply for three", (On(Stage.DOT, say(defects), times=1),),
            (SPOOLED,) * 3, (PENDING,) * 3, (1, 1, 1)),
        Row("message: defects, for each alone, too", (On(Stage.DOT, say(defects)),),
            (SPOOLED,) * 2, (FAILED,) * 2, (0, 0), ends=FAILED),
        refusal("message: long line", f"500 5.6.0 … {long_line[4:]}", long_line, 1, long_body),
        refusal("message: long line, for three", f"500 5.6.0 … {long_line[4:]}", long_line, 3, long_body),
        refusal("message: too large", "552 5.3.4 … Error: Too much mail data", large, 1),
        refusal("message: too large, one reply for two", "552 5.3.4 … Error: Too much mail data", large, 2),
        Row("SIZE: smaller than the message", (), ("552 5.3.4 … message of * octets, 1000 are allowed",) * 2,
            (GONE,) * 2, (0, 0), body=b"line\r\n" * 300, manner=Manner(("SIZE 1000",))),
        Row("SIZE: without a number", (), (DELIVERED,), (GONE,), (1,), manner=Manner(("SIZE",)), upstream="SIZE=*"),
        Row("MAIL: too large for it", (On(Stage.MAIL, say("552 Error: message size exceeds")),),
            ("552 5.3.4 … Error: message size exceeds",) * 2, (GONE,) * 2, (0, 0)),
        Row("MAIL: a sender that it can't read", (On(Stage.MAIL, say("553 5.1.3 Error: malformed address")),),
            ("553 5.1.3 … Error: malformed address",) * 2, (GONE,) * 2, (0, 0)),
    ]  # fmt: skip


def _about_a_recipient() -> list[Row]:
    """Mailman says 550 at RCPT for "no such list", and for an exception of its own: what it says twice is believed."""
    only_b = Manner(lists=frozenset({B}))
    pipelining = Manner(("PIPELINING", "8BITMIME"), lists=frozenset({B}))
    no = On(Stage.RCPT, say(NO_MAILBOX), only=A, times=1)
    twice = replace(no, only=B, times=2)
    stale = On(Stage.MAIL, Act(raw=b"553 5.1.7 stale\r\n250 Ok\r\n"), times=1)
    return [
        Row("RCPT: no such list", (), (NO_SUCH_LIST,), (GONE,), (0,), manner=only_b),
        Row("RCPT: one such list of three", (), (NO_SUCH_LIST, DELIVERED, NO_SUCH_LIST), (GONE,) * 3, (0, 1, 0),
            manner=only_b),
        Row("RCPT: one such list of three, pipelined", (), (NO_SUCH_LIST, DELIVERED, NO_SUCH_LIST), (GONE,) * 3,
            (0, 1, 0), manner=pipelining),
        Row("RCPT: no such list, pipelined", (), (NO_SUCH_LIST,), (GONE,), (0,), manner=pipelining),
        Row("RCPT: 550 once", (no,), (SPOOLED,), (PENDING,), (1,)),
        Row("RCPT: 550 once, for one of two", (no,), (SPOOLED, DELIVERED), (PENDING, GONE), (1, 1)),
        Row("RCPT: 550, then no chance to ask again", (no, On(Stage.DOT, say("451 no"), times=1)),
            (SPOOLED, SPOOLED), (PENDING, PENDING), (1, 1)),
        Row("RCPT: 550, then silence when asked again",
            (no, On(Stage.RCPT, hang(), only=A, times=1)), (SPOOLED, DELIVERED), (PENDING, GONE), (1, 1)),
        Row("RCPT: 550 for all, then a reply that nobody asked for",
            (no, twice, replace(no, only=C), On(Stage.DATA, Act(raw=b"503 nobody\r\n250 Ok\r\n"), times=1)),
            (SPOOLED,) * 3, (PENDING,) * 3, (1, 1, 1), manner=Manner(("PIPELINING",))),
        Row("RCPT: 550, asked again with a reply too many",
            (no, On(Stage.RCPT, Act(raw=b"550 no\r\n250 Ok\r\n"), only=A, times=1)), (SPOOLED, DELIVERED),
            (PENDING, GONE), (1, 1)),
        Row("MAIL: 553 and a reply too many", (stale,), (SPOOLED,) * 2, (PENDING,) * 2, (1, 1)),
        Row("MAIL: 553 and a reply too many, pipelined", (stale,), (SPOOLED,) * 2, (PENDING,) * 2, (1, 1),
            manner=Manner(("PIPELINING",))),
        Row("RCPT: 551", (On(Stage.RCPT, say("551 moved"), only=A),), ("551 5.1.6 … moved", DELIVERED),
            (GONE, GONE), (0, 1)),
        Row("RCPT: 450 for one of two", (On(Stage.RCPT, say("450 busy"), only=A, times=1),), (SPOOLED, DELIVERED),
            (PENDING, GONE), (1, 1)),
    ]  # fmt: skip


def _extensions() -> list[Row]:
    utf8_sender, utf8_recipient = "b\u00f6b@example.net", "l\u00efst@lists.test"
    international = Manner(("SMTPUTF8", "8BITMIME"))
    sender = "550 5.6.7 … the list server takes no non-ASCII reverse-path"
    recipient = "553 5.6.7 … the list server takes no non-ASCII recipient"
    eight = "Gr\u00fc\u00dfe\r\n".encode()
    plain = Manner(("SIZE 33554432",))
    return [
        Row("SMTPUTF8: not offered, sender", (), (sender,) * 2, (GONE,) * 2, (0, 0), sender=utf8_sender,
            parameters="SMTPUTF8"),
        Row("SMTPUTF8: not offered, recipient", (), (recipient, DELIVERED), (GONE, GONE), (0, 1),
            recipients=(utf8_recipient, B), parameters="SMTPUTF8"),
        Row("SMTPUTF8: offered", (), (DELIVERED,) * 2, (GONE, GONE), (1, 1), sender=utf8_sender,
            recipients=(utf8_recipient, B), parameters="BODY=8BITMIME SMTPUTF8", manner=international,
            upstream="BODY=8BITMIME SMTPUTF8", body=eight),
        Row("SMTPUTF8: offered, octets that are no UTF-8", (), (sender,), (GONE,), (0,), sender="b\udcf6b@example.net",
            parameters="SMTPUTF8", manner=international),
        Row("8BITMIME: offered", (), (DELIVERED,), (GONE,), (1,), parameters="BODY=8BITMIME", body=eight,
            upstream="SIZE=* BODY=8BITMIME"),
        Row("8BITMIME: not offered", (), (DELIVERED,), (GONE,), (1,), parameters="BODY=8BITMIME", body=eight,
            manner=plain, upstream="SIZE=*"),
        Row("nothing offered", (), (DELIVERED,), (GONE,), (1,), manner=Manner(("HELP",)), upstream=""),
    ]  # fmt: skip


ROWS = [
    *_before_the_dot(),
    *_in_the_body(),
    *_after_the_dot(),
    *_about_the_message(),
    *_about_a_recipient(),
    *_extensions(),
]
