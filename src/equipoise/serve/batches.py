"""Requests that come at about the same time, answered together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

A = TypeVar("A")
B = TypeVar("B")
PATIENCE_SECONDS = 0.01


@dataclass(eq=False)
class _Asked(Generic[A, B]):
    item: A
    answer: asyncio.Future[B]


class Batches(Generic[A, B]):
    """Calls ``answer`` with all that has come in while it was busy, one call at a time, in a thread of its own.

    Args:
        answer: as many answers as items, in order. Where it raises for several, each is tried alone.
        most: items of one call.
        told: hears of every call: items, seconds.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[A]], Sequence[B]],
        *,
        most: int,
        told: Callable[[int, float], None] = lambda items, seconds: None,
    ) -> None:
        self._answer, self._most, self._told = answer, most, told
        self._waiting: asyncio.Queue[_Asked[A, B]] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="equipoise-forward")

    async def __call__(self, item: A) -> B:
        """The answer to one item.

        Raises:
            Exception: what ``answer`` raises for this item alone.
        """
        asked = _Asked[A, B](item, asyncio.get_running_loop().create_future())
        self._waiting.put_nowait(asked)
        return await asked.answer

    async def run(self) -> None:
        """Answer until cancelled."""
        try:
            while True:
                batch = [await self._waiting.get()]
                await asyncio.sleep(PATIENCE_SECONDS)
                while len(batch) < self._most and not self._waiting.empty():
                    batch.append(self._waiting.get_nowait())
                await self._settle(batch)
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _settle(self, batch: Sequence[_Asked[A, B]]) -> None:
        loop, since = asyncio.get_running_loop(), time.perf_counter()
        try:
            answers = await loop.run_in_executor(self._thread, self._answer, [asked.item for asked in batch])
        except Exception as error:
            if len(batch) > 1:
                for asked in batch:
                    await self._settle([asked])
            elif not batch[0].answer.done():
                batch[0].answer.set_exception(error)
            return
        self._told(len(batch), time.perf_counter() - since)
        for asked, answer in zip(batch, answers, strict=True):
            if not asked.answer.done():  # who asked may have gone
                asked.answer.set_result(answer)
