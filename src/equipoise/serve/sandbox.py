"""Each clip is decoded by a process of its own that can read little, write next to nothing, and has only so long."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from equipoise.extraction.extracted import ExtractedClip
from equipoise.extraction.recipe import Recipe
from equipoise.serve.limits import MEBIBYTE, Limits
from equipoise.serve.preload import RECIPE
from equipoise.serve.wire import unpack
from equipoise.serve.worker import Task, work

_TOLD_BYTES, _ARRAY_BYTES = 16 * MEBIBYTE, 512 * MEBIBYTE


class Refused(ValueError):
    """A clip that is not scored.

    Attributes:
        code: ``media`` (can't be decoded, too long), ``memory``, ``timeout``, ``crashed`` (its process died).
    """

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class Sandbox:
    """Extracts clips in confined processes, forked from one that has the libraries loaded.

    Args:
        recipe: how clips become features.
        limits: of time, memory and length.
        models: the models that the recipe asks for; the processes can read them.
    """

    def __init__(self, recipe: Recipe, limits: Limits, models: Sequence[str | Path] = ()) -> None:
        self.recipe = recipe
        self.limits = limits
        self._models = tuple(os.path.abspath(path) for path in models)  # the processes work in folders of their own
        self._context = _forkserver(recipe, self._models)
        self._lock = threading.Lock()
        self._running: set[BaseProcess] | None = set()

    def probe(self, folder: Path) -> dict[str, bool]:
        """How its processes are confined here; the first call also loads their libraries.

        Args:
            folder: an empty one.

        Raises:
            OSError: no process can be started, or it answers nothing; one line.
        """
        try:
            told, _ = self._run(self._task(folder, "", None, id="", text=None, start=0.0, end=None))
            return dict(_reply(told)["held"])
        except (Refused, KeyError, TypeError) as error:
            raise OSError(f"The process that decodes clips can't be confined: {error}.") from None

    def extract(
        self,
        path: Path,
        *,
        id: str,
        recipe: Recipe | None = None,
        text: str | None = None,
        start: float = 0.0,
        end: float | None = None,
    ) -> ExtractedClip:
        """The features of one clip. Blocks; safe to call from several threads at once.

        Args:
            path: alone in its folder, where the process may write.
            id: of the clip in tables.
            recipe: a part of the sandbox's own; all of it by default.
            text: what is said, if known.
            start, end: seconds of the segment.

        Raises:
            Refused: the clip can't be used, or used too much; one line for whoever sent it.
            RuntimeError: the server is at fault.
        """
        told, arrays = self._run(self._task(path.parent, path.name, recipe, id=id, text=text, start=start, end=end))
        if arrays:
            try:
                return unpack(told, arrays)
            except ValueError as error:
                raise Refused(str(error), "crashed") from None
        content = _reply(told)
        if "refused" in content:
            raise Refused(str(content["refused"]), str(content.get("code")))
        raise RuntimeError(f"Extraction failed. {str(content.get('failed'))[:500]}")

    @property
    def running(self) -> int:
        """Processes at work."""
        return len(self._running or ())

    def close(self) -> None:
        """End its processes, and start no more."""
        with self._lock:
            running, self._running = self._running or set(), None
            for process in running:
                process.kill()

    def _start(self, process: BaseProcess) -> None:
        with self._lock:
            if self._running is None:
                raise RuntimeError("The server ends.")
            process.start()
            self._running.add(process)

    def _end(self, process: BaseProcess) -> None:
        with self._lock:
            (self._running or set()).discard(process)
        process.kill()
        process.join()

    def _task(
        self,
        folder: Path,
        file: str,
        recipe: Recipe | None,
        *,
        id: str,
        text: str | None,
        start: float,
        end: float | None,
    ) -> Task:
        limits = self.limits
        return Task(
            folder=str(folder),
            file=file,
            id=id,
            recipe=(recipe or self.recipe).to_json(),
            text=text,
            start=start,
            end=end,
            clip_seconds=limits.clip_seconds,
            seconds=limits.worker_seconds,
            memory_mb=limits.worker_mb,
            models=self._models,
        )

    def _run(self, task: Task) -> tuple[bytes, bytes]:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=work, args=(theirs, task))
        since = time.monotonic()
        self._start(process)
        theirs.close()
        # Kills also a process that has begun to answer and does not go on.
        clock = threading.Timer(task.seconds, process.kill)
        clock.daemon = True
        clock.start()
        try:
            return ours.recv_bytes(_TOLD_BYTES), ours.recv_bytes(_ARRAY_BYTES)
        except (EOFError, OSError):
            self._end(process)
            raise _death(process.exitcode or 0, task, time.monotonic() - since) from None
        finally:
            clock.cancel()
            clock.join()
            ours.close()
            self._end(process)
            process.close()


def _death(code: int, task: Task, seconds: float) -> Refused:
    if seconds >= task.seconds or -code in (signal.SIGXCPU, signal.SIGALRM):
        return Refused(f"it takes more than {task.seconds:.0f} s to decode", "timeout")
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return Refused(f"the decoder broke down on it ({how})", "crashed")


def _reply(told: bytes) -> Mapping[str, Any]:
    try:
        content = json.loads(told)
    except (ValueError, RecursionError):
        content = None
    return content if isinstance(content, dict) else {"failed": "its process answered nonsense"}


def _forkserver(recipe: Recipe, models: Sequence[str]) -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["equipoise.serve.preload"])
    os.environ[RECIPE] = json.dumps([recipe.to_json(), models])
    try:
        forkserver.ensure_running()
    finally:
        del os.environ[RECIPE]
    return context
