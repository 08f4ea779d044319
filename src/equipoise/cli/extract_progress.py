"""How many clips are done, and the time to go, on standard error."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from equipoise.cli.progress import status

if TYPE_CHECKING:
    from equipoise.extraction.work import ClipWork

Told = Callable[["ClipWork", str, float], None]


@contextmanager
def extract_progress(waiting: Sequence[ClipWork], known: int) -> Iterator[Told]:
    """Show what becomes of clips: a bar on a terminal; elsewhere a line every five seconds, and one at the end.

    The time to go is reckoned by the bytes of the files, which come nearer to their length than their number does.

    Args:
        waiting: what will be extracted now.
        known: clips that were extracted before.
    """
    shares = _bytes(waiting)
    total, since = known + len(waiting), time.monotonic()
    left, failed = dict(shares), 0

    def line() -> str:
        done = sum(shares.values()) - sum(left.values())
        spent = time.monotonic() - since
        to_go = spent * sum(left.values()) / done if done else None
        return said(total - len(left), total, known, failed, to_go)

    if not waiting:
        yield lambda work, what, seconds: None
        return
    with status(total, lambda: total - len(left), line) as show:

        def told(work: ClipWork, what: str, seconds: float) -> None:
            nonlocal failed
            if what in ("done", "failed", "elsewhere"):
                left.pop(work.id, None)
                failed += what == "failed"
            show(not left)

        yield told


def said(done: int, total: int, known: int, failed: int, seconds: float | None) -> str:
    """One line about an extraction.

    >>> said(30, 120, 20, 1, 45.0)
    '30/120 clips, 20 from before, 1 failed, about 45 s to go'
    """
    from equipoise.experiments.clock import spoken

    parts = [f"{done}/{total} clips"]
    parts += [f"{known} from before"] if known else []
    parts += [f"{failed} failed"] if failed else []
    if done < total:
        parts.append(
            "time to go unknown until one has finished" if seconds is None else f"about {spoken(seconds)} to go"
        )
    return ", ".join(parts)


def _bytes(works: Sequence[ClipWork]) -> dict[str, float]:
    """The size of each clip; segments of one file share its bytes."""
    rows = Counter(work.path for work in works)
    sizes = {}
    for work in works:
        with suppress(OSError):
            sizes[work.id] = max(1, os.stat(work.path).st_size) / rows[work.path]
    return {work.id: sizes.get(work.id, 1.0) for work in works}
