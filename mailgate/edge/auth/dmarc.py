"""DMARC: what the evaluation wants to know of the DNS. All authors' records are asked for at once, and first of all.

Promises: a result by the deadline, from what is known then. Whoever has a slow name server of his own (the sender's for
SPF, a signer's, another author's) takes no time from the look-ups that say what an author's domain wants; and what need
not be known is not waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from mailgate.core.auth import Dmarc, Resolved, Signature, Spf
from mailgate.core.dmarc import MAX_AUTHORS, Question, evaluate, lacking
from mailgate.edge.auth.asking import Asking


class Checking:
    """DMARC of one message. `authors` as `core.author` has them (None: too much to read). `client_known`: else SPF may
    have passed, for all that we know.
    """

    def __init__(self, authors: tuple[str, ...] | None, asking: Asking, *, client_known: bool) -> None:
        self._authors = authors
        self._asking = asking
        self._client_known = client_known
        self._answers: dict[Question, Resolved] = {}

    async def policies(self) -> None:
        """Ask for all that can be known without SPF and DKIM, while these wait for others. `result` need not wait."""
        if self._authors and len(self._authors) <= MAX_AUTHORS:  # else nothing is looked at
            await asyncio.gather(*map(self._policy, self._authors))

    async def result(self, spf: Iterable[Spf], dkim: Iterable[Signature], deadline: float) -> Dmarc:
        """What it comes to, by `deadline` (of the loop's clock)."""
        spf, dkim = tuple(spf), tuple(dkim)
        try:
            async with asyncio.timeout_at(deadline):
                while isinstance(found := self._evaluated(spf, dkim), tuple):
                    await self._learn(found)
                return found
        except TimeoutError:  # what has not been answered by now is not
            while isinstance(found := self._evaluated(spf, dkim), tuple):
                self._answers |= dict.fromkeys(found, Resolved("timeout"))
            return found

    def _evaluated(self, spf: Iterable[Spf], dkim: Iterable[Signature]) -> Dmarc | tuple[Question, ...]:
        return evaluate(self._authors, self._answers, spf, dkim, client_known=self._client_known)

    async def _policy(self, author: str) -> None:
        while questions := lacking(author, self._answers):
            await self._learn(questions)

    async def _learn(self, questions: Iterable[Question]) -> None:
        await asyncio.gather(*map(self._ask, questions))

    async def _ask(self, question: Question) -> None:
        self._answers[question] = await self._asking.ask(question.name, question.type)
