"""Every way in which a scorer fails, and the word for it. Nothing is an exception, nothing takes longer than allowed,
and no connection is left behind.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from mailgate.core.message import Message
from mailgate.core.scan import Scored, Unscored
from tests.spam.kit import HAM, Stopwatch, ask, of_size, scorer, until
from tests.stack.fake_scorer import ALIVE, GOOD, REPORT, Act, Engine, FakeScorer, rspamd_json, rspamd_says, spamd_says

BIG = of_size(8 * 2**20)  # more than the kernel takes for a server that does not read
WITHIN = 0.3  # seconds, where it is to pass; else there is time enough
AMPLE = 30.0
_NO_NUMBERS: tuple[object, ...] = ("7.2", True, [], float("nan"), float("inf"), 10**400)


@dataclass(frozen=True)
class Row:
    """What the server does, the reason that comes of it, and a part of the detail."""

    name: str
    act: Act
    reason: str
    detail: str
    mail: Message = HAM

    def __str__(self) -> str:
        return self.name


BOTH = [
    Row("hangs-unread", Act(then="hang", reads=False), "timeout", "no answer in time"),
    Row("hangs-unread-big", Act(then="hang", reads=False), "timeout", "in time", BIG),
    Row("hangs", Act(then="hang"), "timeout", "no answer in time"),
    Row("closes", Act(), "closed", ""),
    Row("resets", Act(then="reset"), "closed", ""),
    Row("resets-unread-big", Act(then="reset", reads=False), "closed", "", BIG),
    Row("garbage", Act(b"\x00\xff\xfe nothing of the kind\r\n\r\n"), "garbage", "not an answer"),
    Row("smtp", Act(b"220 mx.example.net ESMTP\r\n"), "garbage", "not an answer: "),
]
ONLY: dict[Engine, list[Row]] = {
    "spamd": [
        Row("temporary", Act(b"SPAMD/1.0 75 EX_TEMPFAIL\r\n"), "error", "75: EX_TEMPFAIL"),
        Row("own-timeout", Act(b"SPAMD/1.0 79 Timeout: (30 second timeout)\r\n"), "error", "79: Timeout"),
        Row("unknown-code", Act(b"SPAMD/1.0 99 Whatever\r\n"), "error", "99: Whatever"),
        Row("no-score", Act(b"SPAMD/1.1 0 EX_OK\r\nContent-length: 2\r\n\r\nhi"), "garbage", "no score"),
        Row("head-only", Act(b"SPAMD/1.1 0 EX_OK\r\n"), "garbage", "no score"),
        Row("length-too-large", Act(spamd_says().replace(b"length: ", b"length: 1")), "closed", "broke off"),
        Row("length-too-small", Act(spamd_says().replace(b"length: ", b"length: -")), "garbage", ""),
        Row("length-no-number", Act(spamd_says().replace(b"length: ", b"length: x")), "garbage", ""),
        Row("not-ascii-in-head", Act(b"SPAMD/1.1 0 EX_OK\r\n\xff: 1\r\n\r\n"), "garbage", ""),
        Row("hangs-in-answer", Act(spamd_says()[:60], "hang"), "timeout", "no answer in time"),
        Row("hangs-behind-answer", Act(spamd_says(), "hang"), "timeout", "no answer in time"),
        Row("endless", Act(b"SPAMD/1.1 0 EX_OK\r\n" + b"X: y\r\n" * 20_000, "hang"), "garbage", ""),
        *(Row(f"score-{bad}", Act(spamd_says(bad)), "garbage", "") for bad in ("nan", "inf", "-inf", "1e999", "x", "")),
    ],
    "rspamd": [
        Row("status-500", Act(rspamd_says("{}", "500 Internal Error")), "error", "HTTP status 500: {}"),
        Row("status-301", Act(rspamd_says("{}", "301 Elsewhere\r\nLocation: /ping")), "error", "HTTP status 301"),
        Row("length-too-large", Act(rspamd_says().replace(b"Length: ", b"Length: 1")), "closed", ""),
        Row("length-too-small", Act(rspamd_says().replace(b"Length: ", b"Length: 9\r\nX: ")), "garbage", ""),
        Row("length-no-number", Act(rspamd_says().replace(b"Length: ", b"Length: x")), "garbage", ""),
        Row("hangs-in-head", Act(rspamd_says()[:60], "hang"), "timeout", "no answer in time"),
        Row("hangs-in-answer", Act(rspamd_says()[:-60], "hang"), "timeout", "no answer in time"),
        Row("endless", Act(rspamd_says("x" * 2**21)[:-9], "hang"), "garbage", ""),
        Row("no-json", Act(rspamd_says("<html>")), "garbage", ""),
        Row("deep-json", Act(rspamd_says("[" * 100_000)), "garbage", ""),
        Row("a-list", Act(rspamd_says("[]")), "garbage", ""),
        Row("no-score", Act(rspamd_json(score=None)), "garbage", ""),
        Row("no-action", Act(rspamd_json(action=None)), "garbage", ""),
        Row("symbols-a-list", Act(rspamd_json(symbols=[1])), "garbage", ""),
        Row("symbol-without-score", Act(rspamd_json(symbols={"A": {}})), "garbage", ""),
        *(Row(f"score-{bad!r:.9}", Act(rspamd_json(score=bad)), "garbage", "") for bad in _NO_NUMBERS),
        Row("required-nan", Act(rspamd_json(required_score=float("nan"))), "garbage", ""),
    ],
}
TABLE = [pytest.param(engine, row, id=f"{engine}-{row}") for engine in ONLY for row in (*BOTH, *ONLY[engine])]


@pytest.fixture(scope="module")
def only_new_garbage() -> Iterator[None]:
    """What the tests before have left behind is looked through once, not at each of these."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize(("engine", "row"), TABLE)
async def test_a_failure_has_its_word_and_leaves_nothing_behind(
    engine: Engine, row: Row, only_new_garbage: None
) -> None:
    with FakeScorer(engine) as fake:
        one = scorer(engine, fake.port)
        fake.scan = row.act
        with Stopwatch() as watch:
            found = await ask(one, row.mail, within=WITHIN if row.reason == "timeout" else AMPLE)
        assert isinstance(found, Unscored)
        assert (found.reason, row.detail in found.detail) == (row.reason, True), found
        assert found.detail.isprintable()
        assert len(found.detail) < 300
        assert watch.seconds < AMPLE / 2
        fake.release()
        await until(lambda: fake.open == 0, "the connection has ended")
        fake.scan = GOOD[engine]
        assert isinstance(await ask(one), Scored)
        await one.close()
    gc.collect()  # what was left open would warn now, and fail the test


async def test_a_reply_cut_anywhere_is_no_score(engine: Engine, fake: FakeScorer) -> None:
    one = scorer(engine, fake.port)
    good = GOOD[engine].says
    for end in range(0, len(good), 1 if engine == "spamd" else 7):
        fake.scan = Act(good[:end])
        found = await ask(one)
        assert isinstance(found, Unscored), good[:end]
        assert found.reason in {"closed", "garbage"}
    await one.close()


async def test_nobody_there(engine: Engine, fake: FakeScorer) -> None:
    fake.refuse()
    for address in (fake.port, "/nowhere/at/all.sock"):
        one = scorer(engine, address)
        found = await ask(one)
        assert isinstance(found, Unscored)
        assert (found.reason, found.detail) == (
            "refused",
            "Connection refused" if address is fake.port else "No such file or directory",
        )
        await one.close()


async def test_a_connection_that_is_never_made(engine: Engine, fake: FakeScorer) -> None:
    fake.fill()
    one = scorer(engine, fake.port)
    with Stopwatch() as watch:
        found = await ask(one, within=WITHIN)
    assert isinstance(found, Unscored)
    assert found.reason == "timeout"
    assert watch.seconds < AMPLE / 2
    await one.close()


@pytest.mark.parametrize(
    ("act", "wrong"),
    [
        (Act(), True),
        (Act(then="hang"), True),
        (Act(b"SPAMD/1.5 0 PANG\r\n"), True),
        (Act(b"SPAMD/1.0 75 EX_TEMPFAIL\r\n"), True),
        (Act(rspamd_says("pang")), True),
        (Act(rspamd_says("pong", "503 Busy")), True),
        (None, False),
    ],
)
async def test_a_probe(engine: Engine, fake: FakeScorer, act: Act | None, wrong: bool) -> None:
    one = scorer(engine, fake.port)
    fake.ping = act or ALIVE[engine]
    within = WITHIN if fake.ping.then == "hang" else AMPLE
    said = await one.ping(asyncio.get_running_loop().time() + within)
    assert bool(said) is wrong
    fake.refuse()
    assert await one.ping(asyncio.get_running_loop().time() + AMPLE) == "Connection refused"
    await one.close()


async def test_the_report_is_what_was_said(engine: Engine, fake: FakeScorer) -> None:
    one = scorer(engine, fake.port)
    found = await ask(one)
    assert isinstance(found, Scored)
    expected = {
        "spamd": REPORT.strip(),
        "rspamd": "Action: add header\nSymbol: OURS(7.00)[a, b]\nSymbol: SMALL(0.20)",
    }
    assert (found.score, found.report) == (7.2, expected[engine])
    hostile = "\r\n\x00\x1b[2J\r\nbcc: all\r\n \u2028 \t end \n" + "x" * 40_000
    fake.scan = Act(
        spamd_says(report=hostile.encode("latin-1", "replace").decode())
        if engine == "spamd"
        else rspamd_json(action=hostile, symbols={hostile: {"score": 1.0, "options": [hostile, 1]}})
    )
    found = await ask(one)
    assert isinstance(found, Scored)
    assert found.report.replace("\n", "").isprintable()
    assert len(found.report) <= 16 * 1024
    await one.close()


async def test_nothing_is_written_to_stderr(
    engine: Engine, fake: FakeScorer, capfd: pytest.CaptureFixture[str]
) -> None:
    one = scorer(engine, fake.port)
    for act in (GOOD[engine], Act(), Act(b"garbage\r\n"), Act(then="hang")):
        fake.scan = act
        await ask(one, within=WITHIN)
    await one.close()
    assert capfd.readouterr() == ("", "")
