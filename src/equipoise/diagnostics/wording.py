"""Figures and their intervals in words."""

from __future__ import annotations

from typing import Protocol

_UNITS = {
    "accuracy": (100, 1, " points"),
    "acc2_nn": (100, 1, " points"),
    "r2": (1, 3, " of R²"),
    "neg_mae": (1, 3, " of mean absolute error"),
    "log_likelihood": (1, 3, " nats"),
}


_NAMES = {
    "r2": "R²",
    "neg_mae": "minus the mean absolute error",
    "acc2_nn": "accuracy of negative against non-negative",
    "log_likelihood": "log-likelihood",
}


class Interval(Protocol):
    """A figure with its 95 % interval: an `Estimate` or a `Score`."""

    @property
    def value(self) -> float: ...  # noqa: D102
    @property
    def low(self) -> float: ...  # noqa: D102
    @property
    def high(self) -> float: ...  # noqa: D102


def figure(metric: str, value: float) -> str:
    """A score in its unit."""
    return gap(metric, value) + (" %" if _UNITS[metric][0] == 100 else "")


def unit(metric: str) -> str:
    """Of differences."""
    return _UNITS[metric][2].removeprefix(" of ").strip()


def scale(metric: str) -> int:
    """What its numbers are multiplied by where they are written."""
    return _UNITS[metric][0]


def name_of(metric: str) -> str:
    """Of a score, for people."""
    return _NAMES.get(metric, metric)


def gap(metric: str, value: float) -> str:
    """A difference without its unit.

    >>> gap("accuracy", -0.0001)
    '0.0'
    """
    factor, digits, _ = _UNITS[metric]
    return f"{round(factor * value, digits) + 0.0:.{digits}f}"  # + 0 takes the sign off a zero


def level(metric: str, score: Interval) -> str:
    """A score with its interval."""
    return f"{figure(metric, score.value)} [{gap(metric, score.low)}, {gap(metric, score.high)}]"


def difference(metric: str, gain: Interval) -> str:
    """A difference of scores, ± half of its 95 % interval."""
    return f"{gap(metric, gain.value)} ± {gap(metric, (gain.high - gain.low) / 2)}{_UNITS[metric][2]}"


def p_value(p: float) -> str:
    """As ``p = 0.041``."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def percent(share: float) -> str:
    """A share in whole percent.

    >>> percent(0.714)
    '71 %'
    """
    return f"{share * 100:.0f} %"
