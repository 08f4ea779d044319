from __future__ import annotations

from itertools import combinations
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from equipoise.core import SubsetPredict

NAMES = ("text", "audio", "vision")
SUBSETS = [frozenset(s) for size in range(4) for s in combinations(NAMES, size)]


class Sequence(NamedTuple):
    values: Tensor
    mask: Tensor


def tensors(rows: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(rows, 2, generator=generator) for name in NAMES}


def fuse(x: dict[str, Tensor]) -> Tensor:
    return torch.tanh(x["text"] * x["audio"] + 2 * x["vision"])


@pytest.mark.parametrize("muted_rows", [1, 5])
def test_each_subset_is_the_fusion_of_present_and_muted(muted_rows: int) -> None:
    present, muted = tensors(5, 0), tensors(muted_rows, 1)
    predict = SubsetPredict(fuse, present, muted)
    together = predict.batched(SUBSETS)
    for subset, found in zip(SUBSETS, together, strict=True):
        mixed = {name: present[name] if name in subset else muted[name].expand(5, 2) for name in NAMES}
        assert_close(found, fuse(mixed))
        assert_close(predict(subset), fuse(mixed))


def test_all_subsets_take_one_call_of_the_fusion() -> None:
    calls: list[int] = []

    def counted(x: dict[str, Tensor]) -> Tensor:
        calls.append(len(x["text"]))
        return fuse(x)

    SubsetPredict(counted, tensors(4, 0), tensors(1, 1)).batched(SUBSETS)
    assert calls == [4 * len(SUBSETS)]


def test_representations_may_be_named_tuples_and_nested_ones() -> None:
    def wrap(x: Tensor) -> Any:
        return Sequence(x, x > 0), (x * 2,)

    def fused(x: dict[str, Any]) -> Tensor:
        assert all(isinstance(parts[0], Sequence) for parts in x.values())
        return fuse({name: s.values * s.mask + doubled for name, (s, (doubled,)) in x.items()})

    present, muted = tensors(5, 0), tensors(1, 1)
    predict = SubsetPredict(
        fused, {name: wrap(x) for name, x in present.items()}, {name: wrap(x) for name, x in muted.items()}
    )
    plain = SubsetPredict(
        fuse,
        {name: x * (x > 0) + x * 2 for name, x in present.items()},
        {name: x * (x > 0) + x * 2 for name, x in muted.items()},
    )
    for found, expected in zip(predict.batched(SUBSETS), plain.batched(SUBSETS), strict=True):
        assert_close(found, expected)


def test_gradients_reach_both_encoders() -> None:
    present, muted = tensors(5, 0), tensors(1, 1)
    for x in (*present.values(), *muted.values()):
        x.requires_grad_()
    SubsetPredict(fuse, present, muted)(frozenset({"text"})).sum().backward()  # type: ignore[no-untyped-call]
    assert present["text"].grad is not None
    assert muted["audio"].grad is not None
    assert present["audio"].grad is None
    assert muted["text"].grad is None


def test_the_module_is_in_evaluation_mode_only_while_predicting() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5), nn.BatchNorm1d(2))
    module[0].eval()  # somebody's frozen layer
    modes: list[list[bool]] = []

    def fused(x: dict[str, Tensor]) -> Tensor:
        modes.append([part.training for part in module.modules()])
        if len(modes) > 1:
            raise RuntimeError("out of memory")
        return fuse(x)

    before = [part.training for part in module.modules()]
    predict = SubsetPredict(fused, tensors(5, 0), tensors(1, 1), module=module)
    predict(frozenset())
    assert not any(modes[0])
    assert [part.training for part in module.modules()] == before
    with pytest.raises(RuntimeError, match="out of memory"):
        predict(frozenset())
    assert [part.training for part in module.modules()] == before


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match=r"the same modalities. Found \['audio', 'text', 'vision'\] and \['audio'\]"):
        SubsetPredict(fuse, tensors(5, 0), {"audio": torch.zeros(1, 2)})
    with pytest.raises(ValueError, match=r"Unknown modality \['smell'\]. The encoded ones are"):
        SubsetPredict(fuse, tensors(5, 0), tensors(1, 0))(frozenset({"smell", "text"}))
