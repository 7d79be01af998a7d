"""The scorers on the real spamd and rspamd: ham, GTUBE, the report, and the ways in which a real one goes away."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from mailgate.core.envelope import Client, Envelope
from mailgate.core.scan import MAX_REPORT, Scored, Unscored, symbols
from mailgate.scanner import Scorers
from tests.spam.kit import (
    CLIENT,
    ENVELOPE,
    HAM,
    QUEUE_ID,
    SPAM,
    Stopwatch,
    Watched,
    ask,
    of_size,
    scorer,
    unread,
    until,
)
from tests.stack.fake_scorer import Engine
from tests.stack.rspamd import Rspamd
from tests.stack.spamd import Spamd
from tests.stack.waiting import wait_until

LIMIT = {"spamd": (4.0, 1000.0), "rspamd": (15.0, 15.0)}  # what it requires, and what GTUBE has at least
Real = Spamd | Rspamd


@pytest.mark.parametrize("where", ["port", "path"])
async def test_ham_and_spam_by_tcp_and_by_unix_socket(real: Real, engine: Engine, where: str) -> None:
    one = scorer(engine, getattr(real, where))
    required, spam = LIMIT[engine]
    assert await one.ping(asyncio.get_running_loop().time() + 20) == ""
    for mail, low, high in ((HAM, -5.0, required - 1), (SPAM, spam, spam + 50)):
        found = await ask(one, mail)
        assert isinstance(found, Scored)
        assert low <= found.score <= high
        assert (found.required, found.server) == (required, one.name)
        assert ("GTUBE" in found.report) is (mail is SPAM)
        assert ("GTUBE" in symbols(found.report)) is (mail is SPAM)
        assert found.report == found.report.strip()
        assert len(found.report) <= MAX_REPORT
        assert all(line.isprintable() for line in found.report.split("\n"))
    await one.close()


async def test_what_rspamd_is_told_besides_the_message(real_servers: dict[str, Real]) -> None:
    one = scorer("rspamd", real_servers["rspamd"].port)
    assert isinstance(await ask(one), Scored)
    log = wait_until(
        lambda: [line for line in _lines(real_servers["rspamd"]) if "write_log" in line], "the scan is logged"
    )
    for word in (QUEUE_ID, "ip: 192.0.2.7", "from: <ida@example.org>", "rcpts: <list@lists.test,other@lists.test>"):
        assert word in log[-1]
    await one.close()


def _lines(server: Real) -> list[str]:
    return server.output.read_text().splitlines()


@pytest.mark.parametrize(
    ("envelope", "client"),
    [
        (Envelope("", ("list@lists.test",)), Client()),
        (Envelope("åse@example.org", ("liste-é@lists.test",), smtputf8=True), CLIENT),
        (Envelope("b\udc80b@example.org", ("postmaster",)), CLIENT),
        (ENVELOPE, replace(CLIENT, helo="\x07bell\r\nScore: 99", host="é\udc80", user="ida@example.org")),
        (Envelope("ida@example.org", tuple(f"list-{n}@lists.test" for n in range(1000))), CLIENT),
    ],
    ids=["null-sender", "utf8", "not-even-utf8", "hostile-helo", "1000-recipients"],
)
async def test_the_envelope_does_not_change_a_score(
    real: Real, engine: Engine, envelope: Envelope, client: Client
) -> None:
    one = scorer(engine, real.port)
    expected = await ask(one)
    found = await one.score(envelope, HAM, client, asyncio.get_running_loop().time() + 20)
    assert isinstance(found, Scored)
    assert isinstance(expected, Scored)
    assert found.score == expected.score
    await one.close()


async def test_a_message_in_many_pieces_arrives_whole(real: Real, engine: Engine) -> None:
    whole = of_size(60_000)
    body = whole.body[0]
    pieces = replace(whole, body=(*(bytes([octet]) for octet in body[:2000]), body[2000:]))
    one = scorer(engine, real.port)
    assert isinstance(await ask(one, pieces), Scored)  # spamd counts the octets itself, and refuses what is short
    await one.close()


async def test_refused_frozen_killed_and_back_again(real: Real, engine: Engine) -> None:
    one = scorer(engine, real.port)
    real.freeze()
    with Stopwatch() as watch:
        assert await ask(one, within=0.5) == Unscored("timeout", "no answer in time")
        assert await one.ping(asyncio.get_running_loop().time() + 0.5) == "no answer in time"
    assert 1.0 <= watch.seconds < 10
    asked = asyncio.create_task(ask(one))
    await until(lambda: unread(real.port), "the message is at the server")
    for _ in range(10):
        await asyncio.sleep(0)  # and our side knows that all of it is written
    real.kill()
    found = await asked
    assert isinstance(found, Unscored)
    assert found.reason == "closed"
    with Stopwatch() as watch:
        assert await ask(one) == Unscored("refused", "Connection refused")
    assert watch.seconds < 10  # of the twenty that it may take
    real.start()
    assert isinstance(await ask(one), Scored)
    await one.close()


async def test_the_scanner_goes_round_a_frozen_server_and_comes_back_to_it(real_servers: dict[str, Real]) -> None:
    spamd, rspamd = real_servers["spamd"], real_servers["rspamd"]
    names = [str(spamd.port), str(rspamd.port)]
    watched = Watched()
    scanner = Scorers([scorer("spamd", names[0]), scorer("rspamd", names[1])], watched, timeout=8.0, probe_interval=0.1)
    loop = asyncio.get_running_loop()

    async def scan() -> Scored | Unscored:
        return await scanner.scan(ENVELOPE, HAM, CLIENT, loop.time() + 30, QUEUE_ID)

    spamd.freeze()
    watching = asyncio.create_task(scanner.watch())
    with Stopwatch() as watch:
        found = await asyncio.gather(*(scan() for _ in range(5)))
    assert watch.seconds < 8.0
    assert {one.server for one in found if isinstance(one, Scored)} == {names[1]}
    with Stopwatch() as watch:
        assert isinstance(await scan(), Scored)
    assert watch.seconds < 4.0  # a frozen one would take its share of the eight
    spamd.thaw()
    await until(lambda: scanner.states[names[0]], "spamd is trusted again")
    back = await scan()
    assert isinstance(back, Scored)
    assert back.server == names[0]
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await scanner.close()
