from __future__ import annotations

import pytest
import safetensors.torch

from equipoise.core import EpochWindow


@pytest.mark.parametrize(
    ("first", "end", "expected"),
    [(0, None, [1, 1, 1, 1]), (2, None, [0, 0, 1, 1]), (0, 2, [1, 1, 0, 0]), (1, 3, [0, 1, 1, 0])],
)
def test_active_from_the_first_epoch_to_before_the_last(first: int, end: int | None, expected: list[int]) -> None:
    window = EpochWindow(first, end)
    assert [int(window.covers(epoch)) for epoch in range(4)] == expected
    found, over = [], []
    for _ in range(4):
        found.append(int(window.active))
        over.append(window.over)
        window.advance()
    assert found == expected
    assert over == [end is not None and epoch >= end for epoch in range(4)]


def test_the_epoch_is_remembered() -> None:
    window, other = EpochWindow(1, 3), EpochWindow(1, 3)
    window.advance()
    other.load_state_dict(safetensors.torch.load(safetensors.torch.save(window.state_dict())))
    assert other.epoch == 1
    assert other.active


@pytest.mark.parametrize(
    ("first", "end", "name"),
    [(-1, None, "from_epoch"), (2, 2, "until_epoch"), (3, 1, "until_epoch")],
)
def test_impossible_bounds_are_refused(first: int, end: int | None, name: str) -> None:
    with pytest.raises(ValueError, match=f"Parameter `{name}` should be .* Found `{name} = {end if end else first}`"):
        EpochWindow(first, end)
