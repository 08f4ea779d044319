"""Clips in, scores out, as many at once as the limits allow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from equipoise.extraction.extracted import ExtractedClip
from equipoise.features.local_models import find_model
from equipoise.features.transcript import Transcript
from equipoise.scoring.score import Scorer
from equipoise.serve.batches import Batches
from equipoise.serve.jobs import Job, Jobs, Options, Problem, Scored
from equipoise.serve.limits import Limits
from equipoise.serve.metrics import Metrics
from equipoise.serve.sandbox import Refused, Sandbox
from equipoise.serve.scoring import check_options, score_together
from equipoise.serve.scratch import Scratch


class Full(Exception):
    """As many clips wait as may."""


class Service:
    """One model, its queue, its workers.

    Args:
        scorer: the model.
        limits: what is taken on.
        scratch: where uploads lie until they are decoded; the system's folder for temporary files by default.
        models: files and folders of the models that the recipe asks for.

    Attributes:
        deaf: why no words are heard where a clip comes without; empty if they are, or nothing asks for it.

    Raises:
        ValueError: the model does not say how clips become what it reads.
        FileNotFoundError: a model that features are made with is not here.
    """

    def __init__(
        self,
        scorer: Scorer,
        limits: Limits,
        *,
        scratch: str | Path | None = None,
        models: Sequence[str | Path] = (),
    ) -> None:
        self.scorer, self.limits, self.metrics = scorer, limits, Metrics()
        self.recipe = scorer.recipe()
        found, self.deaf = [find_model(each or {}, models) for each in (self.recipe.audio, self.recipe.vision)], ""
        try:
            found.append(find_model(self.recipe.speech or {}, models))
        except FileNotFoundError as error:  # clips that come with their words are scored all the same
            self.deaf = str(error)
        self._models = [path for path in found if path is not None]
        self.jobs = Jobs(limits.kept, limits.kept_seconds)
        self.confined: dict[str, bool] = {}
        self._place, self._ends = scratch, ExitStack()
        self._waiting: asyncio.Queue[Job] = asyncio.Queue()
        self._taken = self._issued = self._begun = 0
        self._tasks: list[asyncio.Task[None]] = []
        self.metrics.watch("equipoise_queue_clips", "Clips that are uploaded or wait.", lambda: self._taken)
        self.metrics.watch("equipoise_kept_results", "Results that are remembered.", lambda: len(self.jobs))

    async def start(self) -> None:
        """Load what decodes, and begin to work.

        Raises:
            OSError: no confined process can be started.
        """
        self.scratch = Scratch(self._place)
        self._ends.callback(self.scratch.close)
        self._threads = ThreadPoolExecutor(self.limits.workers, thread_name_prefix="equipoise-decode")
        self._ends.callback(self._threads.shutdown, wait=True, cancel_futures=True)
        self.sandbox = await asyncio.to_thread(Sandbox, self.recipe, self.limits, self._models)
        self._ends.callback(self.sandbox.close)
        folder = self.scratch.folder()
        self.confined = await asyncio.to_thread(self.sandbox.probe, folder)
        self.scratch.remove(folder)
        self._batches: Batches[tuple[ExtractedClip, Options], Scored] = Batches(
            lambda asked: score_together(self.scorer, asked), most=self.limits.batch, told=self._forward
        )
        self._run(self._batches.run())
        for _ in range(self.limits.workers):
            self._run(self._work())

    async def stop(self) -> None:
        """End at once; what is not finished is lost, and no file stays."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._ends.close()

    @property
    def waiting(self) -> int:
        """Clips that are uploaded or wait."""
        return self._taken

    @contextmanager
    def place(self) -> Iterator[Callable[[Job], None]]:
        """Hold a place in the queue while a body is read; call what it gives with the job to keep it.

        Raises:
            Full: there is none.
        """
        if self._taken >= self.limits.queue:
            raise Full
        self._taken += 1
        kept = False

        def keep(job: Job) -> None:
            nonlocal kept
            kept = True
            self._issued += 1
            job.ticket = self._issued
            self.jobs.add(job)
            self._waiting.put_nowait(job)

        try:
            yield keep
        finally:
            if not kept:
                self._taken -= 1

    def check(self, options: Options) -> None:
        """Refuse what this model can't answer.

        Raises:
            ValueError: one line.
        """
        check_options(self.scorer, options)

    def position(self, job: Job) -> int:
        """Clips that are before it."""
        return max(0, job.ticket - self._begun - 1)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def _work(self) -> None:
        while True:
            job = await self._waiting.get()
            self._taken -= 1
            self._begun += 1
            try:
                clip = await self._decoded(job)
            except Refused as error:
                self._end(job, Problem(error.code, f"This clip can't be scored: {str(error).rstrip('.')}.", 422))
            except Exception as error:
                self._end(job, Problem("server", " ".join(str(error).split())[:500], 500))
            else:
                # Not awaited: the next clip is decoded meanwhile.
                self._run(self._score(job, clip))
                self._tasks = [task for task in self._tasks if not task.done()]

    async def _decoded(self, job: Job) -> ExtractedClip:
        options = job.options
        if job.path is None:
            return ExtractedClip(job.name, {}, Transcript(options.text or "", origin="given"), 0.0)
        job.status, since = "decoding", time.monotonic()
        job.seconds["waiting"] = since - job.begun

        def extract(path: Path) -> ExtractedClip:
            recipe = self.scorer.recipe(options.only)
            return self.sandbox.extract(
                path, id=job.name, recipe=recipe, text=options.text, start=options.start, end=options.end
            )

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, extract, job.path)
        finally:
            await asyncio.to_thread(self.scratch.remove, job.path.parent)
            job.path = None
            job.seconds["decoding"] = time.monotonic() - since
            self.metrics.decoding.observe(job.seconds["decoding"])

    async def _score(self, job: Job, clip: ExtractedClip) -> None:
        job.status, since = "scoring", time.monotonic()
        try:
            scored = await self._batches((clip, job.options))
        except Exception as error:
            self._end(job, Problem("server", " ".join(str(error).split())[:500], 500))
            return
        job.seconds["scoring"] = time.monotonic() - since
        failed = scored.score.error
        self._end(job, Problem("unscorable", failed, 422) if failed else scored)

    def _end(self, job: Job, outcome: Scored | Problem) -> None:
        job.end(outcome)
        self.jobs.settle(job)
        self.metrics.clips.labels(outcome.code if isinstance(outcome, Problem) else "done").inc()
        self.metrics.whole.observe(job.seconds["whole"])

    def _forward(self, clips: int, seconds: float) -> None:
        self.metrics.batch.observe(clips)
        self.metrics.scoring.observe(seconds)


def describe(service: Service) -> dict[str, Any]:
    """What a client has to know of the model and of the limits."""
    info, limits = service.scorer.info, service.limits
    labels = info.labels
    return {
        "model": type(service.scorer.model).__name__,
        "dataset": info.dataset,
        "synthetic": info.synthetic,
        "modalities": list(info.modalities),
        "reads_text": "text" in info.modalities,
        "task": labels.kind,
        "classes": list(labels.classes or ()),
        "range": list(labels.range) if labels.range else None,
        "limits": {
            "upload_bytes": limits.upload_bytes,
            "clip_seconds": limits.clip_seconds,
            "text_length": limits.text_length,
            "uploads_a_minute": limits.rate,
        },
    }
