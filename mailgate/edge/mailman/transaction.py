"""One LMTP transaction: an envelope and a message in, one outcome for each recipient out. RFC 2033 §4.2.

Promises: as many outcomes as recipients, in order, whatever the server does; UNCERTAIN for each recipient whose fate
was lost after the final dot; no reply is credited to the wrong recipient (a connection with a reply too many or too
few is closed). Permanent replies are believed only as `core.triage` says; a refused RCPT is asked for twice.
How it fails: `Stale` if a connection used before turns out dead before anything was answered (try a new one).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TypeGuard

from mailgate.core.data import stuffed
from mailgate.core.envelope import Envelope, address_octets
from mailgate.core.message import Message
from mailgate.core.outcome import Outcome, Result
from mailgate.core.reply import Reply
from mailgate.core.triage import all_alike, judge, silence, speaks_for_all
from mailgate.edge.mailman.connection import Broken, Connection
from mailgate.edge.mailman.dialogue import Dialogue

_WRITE_AT_ONCE = 256 * 1024  # octets; larger messages are written piece by piece, waiting for the socket


class Stale(Exception):
    """The connection had been closed while it lay idle; nothing was sent that could count."""


@dataclass(slots=True)
class Transaction:
    """Run it once. `trouble` tells afterwards why the connection was given up, "" if it was not; `lost`, whether
    that was because the server did not answer (and not because of what it answered).
    """

    connection: Connection
    envelope: Envelope
    message: Message
    deadline: float
    reply_timeout: float
    dot_timeout: float
    trouble: str = ""
    lost: bool = False
    _stage: str = "MAIL"
    _dot_sent: bool = False
    _doubtful: list[int] = field(default_factory=list)
    _talk: Dialogue = field(default_factory=Dialogue)
    _size: int = 0  # of the message
    _plain: bool = True  # all addresses are ASCII

    def __post_init__(self) -> None:
        self._size = self.message.size
        self._plain = self.envelope.sender.isascii() and all(map(str.isascii, self.envelope.recipients))

    async def run(self) -> tuple[Outcome, ...]:
        """One outcome for each recipient of the envelope."""
        outcomes: list[Outcome | None] = [None] * len(self.envelope.recipients)
        try:
            todo = self._todo(outcomes)
            accepted = await self._say_envelope(todo, outcomes) if todo else None
            if accepted:
                await self._send_data()
                await self._read_replies(accepted, outcomes)
            elif accepted is not None:
                await self._reset()
            if self._doubtful and self.connection.usable:
                await self._ask_again(outcomes)
        except Broken as error:
            if self._stage == "MAIL" and self.connection.reused and not self.connection.expired:
                raise Stale(str(error)) from error
            self.lost = True
            self._give_up(f"{error} (at {self._stage})")
        if _all_delivered(outcomes):
            return tuple(outcomes)
        lost = self._lost()
        return self._told([outcome or lost for outcome in outcomes])

    def _told(self, outcomes: list[Outcome]) -> tuple[Outcome, ...]:
        """The same with what was said, where something failed."""
        lines = self._talk.lines(self.trouble)
        return tuple(one if one.result is Result.DELIVERED else replace(one, dialogue=lines) for one in outcomes)

    def _give_up(self, why: str) -> None:
        self.trouble = why
        self.connection.close()

    def _lost(self) -> Outcome:
        if self._dot_sent and not self.connection.unsent:
            return Outcome(Result.UNCERTAIN, silence(f"{self.trouble}: Mailman may have it"), alone=True)
        reached = self._stage != "MAIL"
        return Outcome(Result.DEFERRED if reached else Result.UNREACHED, silence(self.trouble or "not sent"))

    # before anything is sent

    def _todo(self, outcomes: list[Outcome | None]) -> list[int]:
        """Whom the server's extensions do not rule out; the others' outcomes are filled in."""
        limit, size = self.connection.size_limit, self._size
        if 0 < limit < size:  # RFC 1870 §6.2
            text = f"message of {size} octets, {limit} are allowed"
            outcomes[:] = all_alike(Result.REFUSED, Reply(552, "5.3.4", text), len(outcomes))
            return []
        if self._plain:
            return list(range(len(outcomes)))
        utf8 = "SMTPUTF8" in self.connection.features
        if not _sendable(self.envelope.sender, utf8=utf8):  # RFC 6531 §3.5
            reply = Reply(550, "5.6.7", "the list server takes no non-ASCII reverse-path")
            outcomes[:] = all_alike(Result.REFUSED, reply, len(outcomes))
            return []
        for n, recipient in enumerate(self.envelope.recipients):
            if not _sendable(recipient, utf8=utf8):
                reply = Reply(553, "5.6.7", "the list server takes no non-ASCII recipient")
                outcomes[n] = Outcome(Result.REFUSED, reply)
        return [n for n, outcome in enumerate(outcomes) if outcome is None]

    # the envelope

    async def _say_envelope(self, todo: list[int], outcomes: list[Outcome | None]) -> list[int] | None:
        """MAIL, RCPT, DATA. The recipients that were accepted, in order; None when the connection was given up."""
        self._none_is_left_over()
        commands = [self._mail(), *map(self._rcpt, todo)]
        pipelining = self.connection.pipelining
        if pipelining:  # RFC 2920 §3.1: DATA may end the group
            self.connection.send(b"".join([*commands, b"DATA\r\n"]))
            self._talk.said += [*commands, b"DATA"]
            await self.connection.answered(len(commands) + 1, self.deadline, self.reply_timeout)
        mail = self._next() if pipelining else await self._ask(commands[0])
        self._stage = "RCPT"
        if not mail.positive and not pipelining:
            return self._mail_refused(mail, todo, outcomes)
        accepted = []
        for n, command in zip(todo, commands[1:], strict=True):
            reply = self._next() if pipelining else await self._ask(command)
            if reply.positive:
                accepted.append(n)
                continue
            outcomes[n] = Outcome(Result.DEFERRED, reply)  # a refusal is believed when it has been said twice
            if judge("rcpt", reply) is Result.REFUSED:
                self._doubtful.append(n)
        if not pipelining and not accepted:
            return accepted
        data = self._next() if pipelining else await self._ask(b"DATA\r\n")
        if not mail.positive:
            if data.code == 354:
                self._give_up(f"DATA answered with {data} though MAIL was answered with {mail}")
            return self._mail_refused(mail, todo, outcomes, unlikely=bool(accepted))
        if not accepted and data.code != 354:
            return accepted  # RFC 2033 §4.2: 503, nobody is there to get it
        if not accepted or data.code != 354:
            for n in accepted:
                outcomes[n] = Outcome(judge("data", data), data)
            self._give_up(f"DATA answered with {data}")
            return None
        return accepted

    def _mail_refused(
        self, mail: Reply, todo: list[int], outcomes: list[Outcome | None], *, unlikely: bool = False
    ) -> list[int] | None:
        """`unlikely`: recipients were accepted behind it."""
        self._stage = "MAIL answered"
        self._doubtful.clear()
        doubted = unlikely or self.connection.excess  # it may have been a reply to something else
        for n in todo:
            outcomes[n] = Outcome(Result.DEFERRED if doubted else judge("mail", mail), mail)
        if doubted:
            self._give_up(f"MAIL answered with {mail}, and more replies came than that leaves room for")
        if mail.code == 421:  # RFC 5321 §3.8: the server is about to close
            self._give_up(f"MAIL answered with {mail}")
        return [] if self.connection.usable else None

    def _mail(self) -> bytes:
        features, envelope = self.connection.features, self.envelope
        said = b"MAIL FROM:<%s>" % address_octets(envelope.sender)
        if "SIZE" in features:
            said += b" SIZE=%d" % self._size
        if envelope.eight_bit and "8BITMIME" in features:
            said += b" BODY=8BITMIME"
        if "SMTPUTF8" in features and (envelope.smtputf8 or not self._plain):
            said += b" SMTPUTF8"
        return said + b"\r\n"

    def _rcpt(self, number: int) -> bytes:
        return b"RCPT TO:<%s>\r\n" % address_octets(self.envelope.recipients[number])

    async def _ask_again(self, outcomes: list[Outcome | None]) -> None:
        """Mailman gives "no such list" also for an exception: only what it says twice is believed."""
        self._stage = "RCPT"
        if (await self._ask(self._mail())).positive:
            for n in self._doubtful:
                reply = await self._ask(self._rcpt(n))
                self._none_is_left_over()
                outcomes[n] = Outcome(judge("rcpt", reply), reply)
        await self._reset()

    async def _reset(self) -> None:
        if not (await self._ask(b"RSET\r\n")).positive:
            self._give_up("RSET was refused")

    # the message

    async def _send_data(self) -> None:
        self._stage = "message"
        self._none_is_left_over()
        pieces = stuffed(self.message.chunks)
        if self._size <= _WRITE_AT_ONCE:
            self.connection.send(b"".join([*pieces, b".\r\n"]))
            self._dot_sent = True
            return
        for piece in pieces:
            for start in range(0, len(piece), _WRITE_AT_ONCE):
                self.connection.send(piece[start : start + _WRITE_AT_ONCE])
                await self.connection.drain(self._in_time())
        self.connection.send(b".\r\n")
        self._dot_sent = True

    async def _read_replies(self, accepted: list[int], outcomes: list[Outcome | None]) -> None:
        self._stage = "final dot"
        self._talk.said += [b"the message"] * len(accepted)
        for count, n in enumerate(accepted):
            reply = await self._reply()
            if count == 0 and len(accepted) > 1 and speaks_for_all(reply) and not self.connection.excess:
                result = judge("dot", reply, recipients=len(accepted))
                for other in accepted:
                    outcomes[other] = Outcome(result, reply, alone=True)
                self._give_up(f"one reply for {len(accepted)} recipients: {reply}")
                return
            outcomes[n] = Outcome(judge("dot", reply), reply)
        if self.connection.excess:
            self._count_is_wrong(accepted, outcomes)
        elif not _all_delivered([outcomes[n] for n in accepted]):
            self.connection.close()  # after an exception Mailman still holds this envelope and would add to it

    def _count_is_wrong(self, accepted: list[int], outcomes: list[Outcome | None]) -> None:
        """Too many replies: which is whose can't be told, unless all say the same."""
        self._give_up("more replies came than there are recipients")
        replies = [found for n in accepted if (found := outcomes[n]) is not None]
        if any(found.result is not Result.DELIVERED for found in replies):
            for n in accepted:
                outcomes[n] = Outcome(Result.UNCERTAIN, silence(self.trouble), alone=True)

    # waiting

    def _in_time(self) -> float:
        return min(self.deadline, asyncio.get_running_loop().time() + self.reply_timeout)

    async def _reply(self) -> Reply:
        await self.connection.answered(1, self.deadline, self.dot_timeout if self._dot_sent else self.reply_timeout)
        return self._next()

    def _next(self) -> Reply:
        reply = self.connection.take()
        self._talk.heard.append(reply)
        return reply

    def _none_is_left_over(self) -> None:
        if self.connection.excess:
            raise Broken("a reply came that nobody had asked for")  # the next ones could be anybody's

    async def _ask(self, command: bytes) -> Reply:
        self._none_is_left_over()
        self._talk.said.append(command)
        self.connection.send(command)
        return await self._reply()


def _all_delivered(outcomes: list[Outcome | None]) -> TypeGuard[list[Outcome]]:
    return all(one is not None and one.result is Result.DELIVERED for one in outcomes)


def _sendable(address: str, *, utf8: bool) -> bool:
    if address.isascii():
        return True
    return utf8 and not any("\udc80" <= c <= "\udcff" for c in address)
