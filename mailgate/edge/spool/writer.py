"""The one thread that writes: jobs that arrive while a commit runs share the next one.

Promises: a job's caller hears of success only after the commit that holds it has returned; a job fails alone, the
others of its batch are done again without it; a caller that has given up leaves nothing behind (a job not begun is
never begun, one that was just being committed is undone by the very next transaction).
Fails with SpoolError, SpoolFull or SpoolDamaged to the job's caller; `on_trouble` is told of what has no caller.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from sqlalchemy import Connection, Engine

from mailgate.edge.spool.database import commit, roll_back
from mailgate.edge.spool.errors import is_full, translated
from mailgate.ports import SpoolError

A = TypeVar("A")
R = TypeVar("R")

MOST_JOBS = 256  # in one commit
MOST_OCTETS = 16 * 2**20  # the same, by what the jobs carry
RETRY = 2.0  # seconds between attempts to undo


@dataclass(frozen=True, slots=True)
class Operation(Generic[A, R]):
    """What is done to the database: `doing` says it for the log.

    `run` takes the arguments of all its jobs in a batch and gives a result for each; a SpoolError as a result fails
    that job only. It may be run again after a failure. `undo` takes back what a committed job did. `vital` work makes
    the spool smaller or keeps it true: the ballast is given up for it.
    """

    doing: str
    run: Callable[[Connection, Sequence[A]], Sequence[R | SpoolError]]
    undo: Callable[[Connection, A, R], None] | None = None
    vital: bool = True


@dataclass(eq=False, slots=True)
class _Job:
    operation: Operation[Any, Any]
    argument: Any
    octets: int
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    stage: Literal["waiting", "begun", "answered"] = "waiting"
    withdrawn: bool = False


Outcome = tuple[_Job, Any]  # an exception as the second fails the job


class _AllFail(Exception):
    """BEGIN or COMMIT failed: trying the jobs one by one would only take longer. The cause says why."""


class Writer:
    """Submit with `do`, from any event loop."""

    def __init__(
        self,
        engine: Engine,
        relief: Callable[[], bool],
        on_commit: Callable[[float], None],
        on_trouble: Callable[[str], None],
    ) -> None:
        """`relief` makes room on a full disk, False if it can't. `on_commit` gets the seconds of each commit,
        `on_trouble` words; both are called in the writer's thread.
        """
        self._engine = engine
        self._relief = relief
        self._on_commit = on_commit
        self._on_trouble = on_trouble
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._guard = threading.Lock()  # over `stage` and `withdrawn` of all jobs
        self._to_undo: list[Outcome] = []
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="spool-writer", daemon=True)
        self._thread.start()

    async def do(self, operation: Operation[A, R], argument: A, timeout: float, octets: int = 0) -> R:
        """The result of the operation, once it is committed. Raises SpoolError; then nothing of it is kept."""
        if self._closing or not self._thread.is_alive():
            raise SpoolError("the spool is closed")
        loop = asyncio.get_running_loop()
        job = _Job(operation, argument, octets, loop.create_future(), loop)
        expiry = loop.call_later(timeout, self._expire, job, timeout)
        self._queue.put(job)
        try:
            result: R = await job.future
        except asyncio.CancelledError:
            if not job.future.cancelled() and job.future.exception() is None:
                self._resolve([(job, job.future.result())])  # the answer has come, and nobody hears it
            self._withdraw(job)
            raise
        finally:
            expiry.cancel()
        return result

    def _expire(self, job: _Job, timeout: float) -> None:
        if job.future.done():
            return
        stage = self._withdraw(job)
        if stage != "answered":  # else the answer is on its way to this loop, and it is the truth
            how = "not begun" if stage == "waiting" else "not committed"
            job.future.set_exception(SpoolError(f"{job.operation.doing}: {how} within {timeout:g} s"))

    def _withdraw(self, job: _Job) -> str:
        with self._guard:
            if job.stage != "answered":
                job.withdrawn = True
            if job.stage == "waiting":
                job.argument = None  # a message need not stay in memory until the thread passes by
            return job.stage

    def close(self, timeout: float) -> bool:
        """Do what has been submitted, then end. Blocks, up to `timeout` seconds; False if it has not ended then."""
        self._closing = True
        self._queue.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _work(self) -> None:
        connection: Connection | None = None
        ending = False
        while not ending:
            batch, ending = self._take()
            try:
                connection = connection or self._engine.connect()
                outcomes = self._attempt(connection, batch) if batch else []
            except Exception as error:  # noqa: BLE001 - every caller must be answered, whatever it was
                outcomes = [(job, translated(error, job.operation.doing)) for job in batch]
            self._answer(outcomes)
            if connection is not None:
                self._undo(connection)
        if connection is not None:
            connection.close()

    def _take(self) -> tuple[list[_Job], bool]:
        batch: list[_Job] = []
        octets = 0
        try:
            job = self._queue.get(timeout=RETRY if self._to_undo else None)
            while job is not None:
                with self._guard:
                    if not job.withdrawn:
                        job.stage = "begun"
                        batch.append(job)
                        octets += job.octets
                if len(batch) >= MOST_JOBS or octets >= MOST_OCTETS:
                    return batch, False
                job = self._queue.get_nowait()
        except queue.Empty:
            return batch, False
        return batch, True

    def _attempt(self, connection: Connection, batch: Sequence[_Job]) -> list[Outcome]:
        try:
            return self._transact(connection, batch)
        except Exception as error:  # noqa: BLE001 - it becomes the answer
            cause = error.__cause__ if isinstance(error, _AllFail) and error.__cause__ else error
            full = is_full(cause)
            if len(batch) > 1 and (full or cause is error):
                return [outcome for job in batch for outcome in self._attempt(connection, [job])]
            if full and batch[0].operation.vital and self._relief():
                return self._attempt(connection, batch)
            return [(job, translated(cause, job.operation.doing)) for job in batch]

    def _transact(self, connection: Connection, batch: Sequence[_Job]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        try:
            connection.begin()
        except Exception as error:
            roll_back(connection)
            raise _AllFail from error
        try:
            for operation in dict.fromkeys(job.operation for job in batch):
                jobs = [job for job in batch if job.operation is operation]
                results = operation.run(connection, [job.argument for job in jobs])
                outcomes.extend(zip(jobs, results, strict=True))
        except BaseException:
            roll_back(connection)
            raise
        began = time.perf_counter()
        try:
            commit(connection)
        except Exception as error:
            raise _AllFail from error
        _tell(self._on_commit, time.perf_counter() - began)
        return outcomes

    def _answer(self, outcomes: Sequence[Outcome]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[Outcome]] = {}
        with self._guard:
            for job, result in outcomes:
                job.stage = "answered"
                if not job.withdrawn:
                    by_loop.setdefault(job.loop, []).append((job, result))
                elif job.operation.undo is not None and not isinstance(result, BaseException):
                    self._to_undo.append((job, result))
        for loop, answers in by_loop.items():
            with suppress(RuntimeError):  # the loop is closed: nobody is left to hear it
                loop.call_soon_threadsafe(self._resolve, answers)

    def _resolve(self, answers: Sequence[Outcome]) -> None:
        for job, result in answers:
            if isinstance(result, BaseException):
                if not job.future.done():
                    job.future.set_exception(result)
            elif not job.future.done():
                job.future.set_result(result)
            elif job.operation.undo is not None:  # its caller was cancelled while the answer was on its way
                with self._guard:
                    job.withdrawn = True
                    self._to_undo.append((job, result))
                self._queue.put(job)  # wakes the thread; a withdrawn job is not done again

    def _undo(self, connection: Connection) -> None:
        """Take back what withdrawn jobs did, before anything else is done."""
        with self._guard:
            given_up, self._to_undo = self._to_undo, []
        for job, result in given_up:
            [(_, outcome)] = self._attempt(connection, [_reverse(job, result)])
            if isinstance(outcome, BaseException):
                _tell(self._on_trouble, str(outcome))
                with self._guard:
                    self._to_undo.append((job, result))


def _tell(callback: Callable[[A], None], what: A) -> None:
    try:
        callback(what)
    except Exception:
        # What is committed stays committed, whatever is wrong with those who are told of it.
        logging.getLogger(__name__).exception("telling %r failed", what)


def _reverse(job: _Job, result: Any) -> _Job:
    undo = job.operation.undo
    assert undo is not None

    def run(connection: Connection, arguments: Sequence[Any]) -> list[None]:
        for argument in arguments:
            undo(connection, argument, result)
        return [None] * len(arguments)

    doing = f"undoing {job.operation.doing}"
    return _Job(Operation(doing, run), job.argument, 0, job.future, job.loop)
