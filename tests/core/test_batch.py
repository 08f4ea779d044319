from __future__ import annotations

import torch

from equipoise.core import Batch


def batch() -> Batch:
    return Batch(
        inputs={"text": torch.tensor([[5, 6, 0], [7, 0, 0]]), "audio": torch.ones(2, 4, 3)},
        masks={
            "text": torch.tensor([[True, True, False], [True, False, False]]),
            "audio": torch.tensor([[True, True, True, False], [False] * 4]),
        },
        target=torch.tensor([0.5, -1.0]),
        index=torch.tensor([8, 3]),
    )


def test_length_and_parts() -> None:
    assert len(batch()) == 2
    only = batch().only(["audio"])
    assert list(only.inputs) == list(only.masks) == ["audio"]
    assert torch.equal(only.target, batch().target)
    assert list(batch().only([]).inputs) == []


def test_muted_is_one_row_of_nothing_that_no_encoder_stumbles_over() -> None:
    muted = batch().muted()
    assert len(muted) == 1
    assert muted.inputs["text"].tolist() == [[0, 0, 0]]
    assert muted.inputs["text"].dtype == torch.int64
    assert muted.masks["text"].tolist() == [[True, False, False]]
    assert muted.inputs["audio"].shape == (1, 4, 3)
    assert not muted.inputs["audio"].any()
    assert muted.masks["audio"].tolist() == [[True, False, False, False]]
    assert batch().masks["text"].sum() == 3


def test_moving_moves_every_tensor() -> None:
    moved = batch().to("meta")
    tensors = [*moved.inputs.values(), *moved.masks.values(), moved.target, moved.index]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert len(tensors) == 6
