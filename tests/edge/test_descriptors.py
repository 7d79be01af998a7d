"""No file descriptors left: said by its name, and the pages still answer."""

import resource
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mailgate.config import parse
from mailgate.edge.descriptors import Descriptors
from tests.edge.pair import Pair
from tests.edge.test_own_faults import Telemetry
from tests.stack.children import account
from tests.stack.waiting import wait_until


@pytest.fixture
def pair() -> Iterator[Pair]:
    one = Pair()
    yield one
    one.close()


def allow(pid: int) -> None:
    """Let the process have few more files than it has: some for what it opens later and keeps."""
    most = max(int(file.name) for file in Path(f"/proc/{pid}/fd").iterdir()) + 16
    drop = account("nobody")  # whom it runs as: others need a privilege for it
    argv = [*(drop.launcher() if drop else []), "prlimit", f"--pid={pid}", f"--nofile={most}:{most}"]
    subprocess.run(argv, check=True, timeout=60)


def test_the_shortage_is_said_and_the_pages_answer(pair: Pair) -> None:
    gate = pair.gate
    gate.start()
    assert pair.send("list@lists.test").codes == [250]
    allow(gate.pid)
    with ExitStack() as clients:

        def crowded() -> bool:
            clients.enter_context(socket.create_connection(gate.lmtp, 60))
            return bool(gate.events("descriptors.exhausted"))

        wait_until(crowded, "no descriptor is left")
        said = gate.events("descriptors.exhausted")[0]
        assert (said["level"], "LimitNOFILE=" in said["cause"]) == ("error", True)
        assert wait_until(lambda: gate.page("/healthz")[0] == 200, "the page answers")
    gate.wait_for_event("descriptors.free")
    wait_until(lambda: pair.send("list@lists.test").codes == [250], "mail is taken again")


def test_too_few_for_the_configuration_are_said_at_the_start() -> None:
    telemetry = Telemetry()
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    Descriptors(telemetry).begin(allowed)
    assert not telemetry.events
    Descriptors(telemetry).begin(allowed + 1)
    assert [name for name, *_ in telemetry.events] == ["descriptors.few"]


def test_what_the_configuration_may_take() -> None:
    few = {"auth": dict.fromkeys(("spf", "dkim", "dmarc", "arc"), False), "spam": {"engine": "off"}}
    least = parse(few).descriptors
    assert least > 500 + 10
    assert parse(few | {"verdict": {"listen": ["127.0.0.1:11333"]}}).descriptors == least + 100
    assert (
        parse({"auth": few["auth"], "spam": {"servers": ["127.0.0.1:783", "127.0.0.2:783"]}}).descriptors == least + 16
    )
    assert least + 8 + 100 < parse({}).descriptors < 1024  # what a shell allows
