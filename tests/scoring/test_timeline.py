from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.scoring.timeline import windows

seconds = st.floats(0.1, 50, allow_nan=False)


@given(st.floats(0, 60), seconds, seconds)
def test_pieces_cover_the_video_and_are_alike(duration: float, window: float, hop: float) -> None:
    pieces = windows(duration, window, hop)
    assert pieces[0][0] == 0
    assert pieces[-1][1] == pytest.approx(duration, abs=2e-6)
    for start, end in pieces:
        assert 0 <= start <= duration
        assert abs(end - start - min(window, duration)) < 2e-6
    for one, other in pairwise(pieces):
        assert 0 < other[0] - one[0] <= hop * (1 + 1e-9) + max(0.0, hop - window)
    if hop <= window:
        assert all(other[0] <= one[1] + 1e-6 for one, other in pairwise(pieces))  # no hole


def test_by_hand() -> None:
    assert windows(10, 5) == [(0, 5), (5, 10)]
    assert windows(10, 4, 3) == [(0, 4), (3, 7), (6, 10)]
    assert windows(10.5, 4, 3) == [(0, 4), (3, 7), (6, 10), (6.5, 10.5)]
    assert windows(0.3, 0.1) == [(0.0, 0.1), (0.1, 0.2), (pytest.approx(0.2), pytest.approx(0.3))]
    assert windows(2, 4, 1) == [(0, 2)]


@pytest.mark.parametrize("given", [(10, 0), (10, -1), (10, float("nan")), (10, 1, 0), (1e9, 1)])
def test_bad_sizes(given: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"Parameter `(window|hop)`"):
        windows(*given)
