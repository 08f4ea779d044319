"""Timestamps of recordings that were cut and joined."""

from __future__ import annotations

_FORTH = 10.0  # seconds; no frame of a broadcast is shown as long
_BACK = 1.0  # seconds; frames that are stored out of order lie closer


def may_jump(container: str) -> bool:
    """Whether files of this format are joined without their timestamps being put right: MPEG's streams are."""
    return container.startswith("mpeg")


class Timestamps:
    """The timestamps of one track with its jumps taken out.

    Args:
        may_jump: whether a leap of over ten seconds forth or one second back is one; else they pass as they are.

    Attributes:
        jumps: how many there were.
    """

    def __init__(self, may_jump: bool) -> None:
        self.jumps = 0
        self._may_jump = may_jump
        self._shift = 0.0
        self._last: float | None = None

    def steady(self, time: float) -> float:
        """The next timestamp in seconds; behind a jump time goes on from the last one."""
        if self._may_jump and self._last is not None and not -_BACK <= time + self._shift - self._last <= _FORTH:
            self.jumps += 1
            self._shift = self._last - time
        self._last = time + self._shift
        return self._last
