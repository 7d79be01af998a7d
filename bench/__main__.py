"""`python -m bench`: run the scenarios, print the tables, write all that was measured to `bench/out/`."""

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bench import mails, parts, relays
from bench.meter import kind_of_meter
from bench.process import NotReadyError
from bench.relays import Relay
from bench.runs import Effort, Run, Scenario, measure, measure_replay
from bench.table import Row, render

YARDSTICK = "Postfix"
PASSING = (
    Scenario("4k", 10),
    Scenario("4k", 1),
    Scenario("4k", 10, 1),
    Scenario("100k", 10),
    Scenario("4k", 50),
)
SPOOLING = (Scenario("4k", 10), Scenario("4k", 50))
WARM_UP_SECONDS = 0.3


@dataclass(frozen=True)
class Bench:
    """What all parts of one bench share."""

    directory: Path
    mails: dict[str, Path]
    effort: Effort
    repetitions: int
    mailgate: Path | None
    """The command; None: the yardsticks alone."""

    def passing(self, scenarios: tuple[Scenario, ...]) -> list[Row]:
        """Mail goes through, and the 250 is that of the sink behind."""
        doors = [relays.straight(), relays.postfix_proxy(self.directory / "postfix-proxy")]
        if self.mailgate:
            doors.append(relays.mailgate_passing(self.directory / "mailgate-passing", self.mailgate))
            doors.append(relays.mailgate_passing(self.directory / "mailgate-history", self.mailgate, history=True))
        with ExitStack() as stack:
            running = _enter_all(stack, doors)
            return [row for scenario in scenarios for row in self._rows(scenario, running)]

    def spooling(self, scenarios: tuple[Scenario, ...]) -> tuple[list[Row], list[Row]]:
        """Mail is made durable: the rows of taking it, and those of delivering it afterwards."""
        doors = [relays.postfix_queue(self.directory / "postfix-queue")]
        if self.mailgate:
            doors.append(relays.mailgate_spooling(self.directory / "mailgate-spooling", self.mailgate))
        with ExitStack() as stack:
            running = _enter_all(stack, doors)
            taken = [row for scenario in scenarios for row in self._rows(scenario, running)]
            delivered = [_as_drain(row) for row in taken if row.relay == YARDSTICK][:1]
            for relay in running:
                if relay.sink is None:
                    spooled = sum(row.accepted for row in taken if row.relay == relay.name)
                    delivered.append(Row("replay", relay.name, (measure_replay(relay, spooled),)))
            return taken, delivered

    def _rows(self, scenario: Scenario, running: list[Relay]) -> list[Row]:
        """All repetitions of a scenario, the relays taking turns so that a busy moment strikes each of them."""
        mail = self.mails[scenario.size]
        short = replace(self.effort, seconds=WARM_UP_SECONDS)
        warm_ups = [measure(relay, scenario, mail, short) for relay in running]
        turns: list[list[Run]] = []
        for number in range(self.repetitions):
            _progress(f"{scenario}: {number + 1} of {self.repetitions}")
            turns.append([measure(relay, scenario, mail, self.effort) for relay in running])
        columns = zip(running, warm_ups, zip(*turns, strict=True), strict=True)
        return [Row(str(scenario), relay.name, runs, warm_up) for relay, warm_up, runs in columns]


def _enter_all(stack: ExitStack, doors: Sequence[AbstractContextManager[Relay]]) -> list[Relay]:
    _progress("starting the relays")
    return [stack.enter_context(door) for door in doors]


def _as_drain(row: Row) -> Row:
    """A queue delivers while it takes mail: its rate to the last arrival, as a row of its own."""
    runs = (
        replace(run, per_second=run.arriving_per_second, p50_ms=None, p99_ms=None, max_ms=None, trouble="")
        for run in row.runs
    )
    return Row("replay", row.relay, tuple(runs))


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="mailgate next to Postfix, in one run")
    parser.add_argument(
        "--quick", action="store_true", help="one scenario, short: does it still run, roughly how fast?"
    )
    parser.add_argument(
        "--scenario", action="append", metavar="NAME", help="only this one, such as 4k/10x1; repeatable"
    )
    parser.add_argument("--no-spooling", action="store_true", help="pass-through only")
    parser.add_argument("--yardstick-only", action="store_true", help="without mailgate")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each repetition (default %(default)s)")
    parser.add_argument("--repetitions", type=int, default=3, help="of each scenario (default %(default)s)")
    parser.add_argument("--pipelining", action="store_true", help="send MAIL, RCPT and DATA together, as Exim does")
    parser.add_argument("--directory", type=Path, help="where queue and spool are made (default: the temporary one)")
    parser.add_argument(
        "--mailgate", type=Path, default=Path(sys.executable).with_name("mailgate"), help="the command (%(default)s)"
    )
    options = parser.parse_args()
    known = {str(scenario) for scenario in PASSING}
    if unknown := set(options.scenario or ()) - known:
        parser.error(f"no scenario {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    if options.quick:
        options.scenario, options.no_spooling, options.seconds = ["4k/10"], True, 0.5
    if not options.yardstick_only and not options.mailgate.exists():
        parser.error(f"{options.mailgate} does not exist: run `make venv`, or give --mailgate or --yardstick-only")
    return options


def _conditions(directory: Path) -> dict[str, str | int]:
    """What the numbers depend on."""
    commit = ""
    if shutil.which("git"):
        describe = ["git", "-C", str(parts.ROOT), "describe", "--always", "--dirty"]
        commit = subprocess.run(describe, check=False, capture_output=True, text=True).stdout.strip()
    filesystem = subprocess.run(
        ["stat", "--file-system", "--format", "%T", directory], check=True, capture_output=True, text=True
    )
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "commit": commit or "unknown",
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": f"{os.getloadavg()[0]:.1f}",
        "filesystem": filesystem.stdout.strip(),
        "cpu_from": kind_of_meter(),
    }


def _run(options: argparse.Namespace, directory: Path) -> dict[str, list[Row]]:
    """All that was asked for: the rows, by the titles of their tables."""

    def chosen(scenarios: tuple[Scenario, ...]) -> tuple[Scenario, ...]:
        return tuple(s for s in scenarios if not options.scenario or str(s) in options.scenario)

    bench = Bench(
        directory=directory,
        mails={size: mails.write(size, directory) for size in mails.SIZES},
        effort=Effort(options.seconds, options.pipelining),
        repetitions=options.repetitions,
        mailgate=None if options.yardstick_only else options.mailgate.absolute(),
    )
    tables = {"Passing through (yardstick: Postfix smtpd_proxy_filter)": bench.passing(chosen(PASSING))}
    if not options.no_spooling and chosen(SPOOLING):
        taken, delivered = bench.spooling(chosen(SPOOLING))
        tables["Spooling, Mailman down (yardstick: Postfix's queue, delivering meanwhile)"] = taken
        tables["Replay of what was spooled (yardstick: the same queue up to its last delivery)"] = delivered
    return tables


def _write(path: Path, conditions: dict[str, str | int], tables: dict[str, list[Row]]) -> None:
    rows = {title: [asdict(row) for row in table] for title, table in tables.items()}
    path.write_text(json.dumps({"conditions": conditions, "tables": rows}, indent=1))


def main() -> int:
    """Exit status: 1 when mail was lost, doubled or refused, whatever the speed."""
    options = _arguments()
    if os.geteuid():
        sys.exit("Postfix, the yardstick, needs root")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parts.prepare()
    directory = Path(tempfile.mkdtemp(prefix="mailgate-bench.", dir=options.directory))
    directory.chmod(0o755)  # Postfix's daemons leave root behind
    try:
        conditions = _conditions(directory)
        tables = _run(options, directory)
    except NotReadyError as error:
        sys.exit(f"{error}\nall logs are in {directory}")
    except BaseException:
        _progress(f"the logs are in {directory}")
        raise
    shutil.rmtree(directory)
    print(", ".join(f"{name} {value}" for name, value in conditions.items()))
    if conditions["filesystem"] == "tmpfs":
        print("Spool and queue are in memory: syncing them costs nothing here. Give --directory on a disk.")
    for title, rows in tables.items():
        print(f"\n{title}\n{render(rows, YARDSTICK)}")
    result = parts.OUT / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    _write(result, conditions, tables)
    _progress(f"\nall runs: {result.relative_to(parts.ROOT)}")
    return 1 if any(row.trouble for rows in tables.values() for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
