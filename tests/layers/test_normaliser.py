from __future__ import annotations

import pytest
import torch

from equipoise.core import Batch
from equipoise.layers import Normaliser, masked_mean


def _features() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(4, 5, 3, generator=generator)
    values = values * torch.tensor([1.0, 20.0, 0.1]) + torch.tensor([0.0, 300.0, -2.0])
    mask = torch.arange(5) < torch.tensor([[5], [3], [1], [0]])
    return values, mask


def test_it_is_the_identity_until_fit() -> None:
    values, mask = _features()
    out = Normaliser({"audio": 3})("audio", values, mask)
    assert torch.equal(out.values[mask], values[mask])


def test_real_frames_become_standard_and_padding_zero() -> None:
    values, mask = _features()
    normaliser = Normaliser({"audio": 3, "vision": 2})
    real = values[mask]
    normaliser.fit("audio", real.mean(0), real.std(0, correction=0))
    values[~mask] = float("nan")
    out = normaliser("audio", values, mask)
    torch.testing.assert_close(out.values[mask].mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.values[mask].std(0, correction=0), torch.ones(3))
    assert bool((out.values[~mask] == 0).all())


def test_a_constant_feature_is_only_centred() -> None:
    normaliser = Normaliser({"audio": 2})
    normaliser.fit("audio", torch.tensor([7.0, 1.0]), torch.tensor([0.0, 2.0]))
    out = normaliser("audio", torch.tensor([[[7.0, 5.0], [9.0, 1.0]]]), torch.tensor([[True, True]]))
    assert out.values.tolist() == [[[0.0, 2.0], [2.0, 0.0]]]


def test_statistics_travel_in_the_state_dict() -> None:
    fitted, fresh = Normaliser({"audio": 2}), Normaliser({"audio": 2})
    fitted.fit("audio", torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))
    fresh.load_state_dict(fitted.state_dict())
    assert [s.tolist() for s in fresh.statistics("audio")] == [[1.0, 2.0], [3.0, 4.0]]
    assert not list(fresh.parameters())


def test_a_neutral_batch_standardises_to_zeros() -> None:
    values, mask = _features()
    normaliser = Normaliser({"audio": 3})
    normaliser.fit("audio", torch.tensor([0.0, 300.0, -2.0]), torch.tensor([1.0, 20.0, 0.1]))
    tokens = torch.arange(8).view(4, 2)
    batch = Batch(
        {"audio": values, "text": tokens},
        {"audio": mask, "text": torch.ones(4, 2, dtype=torch.bool)},
        torch.zeros(4),
        torch.arange(4),
    )
    neutral = normaliser.neutral(batch.muted())
    out = normaliser("audio", neutral.inputs["audio"], neutral.masks["audio"])
    assert bool((out.values == 0).all())
    assert neutral.masks["audio"].tolist() == [[True, False, False, False, False]]
    assert bool((masked_mean(out.values, out.mask) == 0).all())
    assert neutral.inputs["text"].tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("modality", "mean", "std", "message"),
    [
        ("smell", [0.0, 0.0], [1.0, 1.0], "`modality` should be one of .'audio'.. Found 'smell'"),
        ("audio", [0.0], [1.0, 1.0], r"`mean` should have shape \(2,\) for 'audio'. Found \(1,\)"),
        ("audio", [0.0, 0.0], [1.0], r"`std` should have shape \(2,\) for 'audio'. Found \(1,\)"),
        ("audio", [0.0, float("nan")], [1.0, 1.0], "`mean` should be finite"),
        ("audio", [0.0, 0.0], [1.0, -1.0], "`std` should be non-negative for 'audio'. Found -1.0"),
    ],
)
def test_bad_statistics_are_refused(modality: str, mean: list[float], std: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Normaliser({"audio": 2}).fit(modality, torch.tensor(mean), torch.tensor(std))
