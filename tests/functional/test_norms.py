from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from equipoise import Modalities
from equipoise.functional import gradient_norms


def modality(*gradients: list[float] | None, dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    """Parameters with these gradients."""
    parameters = []
    for gradient in gradients:
        parameter = nn.Parameter(torch.zeros(len(gradient or [0.0]), dtype=dtype))
        parameter.grad = None if gradient is None else torch.tensor(gradient, dtype=dtype)
        parameters.append(parameter)
    return parameters


def test_root_mean_square_over_tensors_and_not_over_elements() -> None:
    # text: norms 1 and 7, sqrt((1 + 49) / 2) = 5; audio: sqrt(3² + 4²) = 5 over one tensor; vision: 2
    found = gradient_norms(
        Modalities(text=modality([1.0], [7.0]), audio=modality([3.0, 4.0]), vision=modality([2.0], [-2.0]))
    )
    assert_close(found, torch.tensor([5.0, 5.0, 2.0]))


def test_tensors_without_a_gradient_do_not_count() -> None:
    found = gradient_norms(Modalities(text=modality([3.0], None), audio=modality(None, None), vision=modality([0.0])))
    assert_close(found, torch.tensor([3.0, 0.0, 0.0]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_single(dtype: torch.dtype) -> None:
    # 300² = 90000 is infinite in float16
    found = gradient_norms(Modalities(text=modality([300.0, 400.0], dtype=dtype), audio=modality([1.0], dtype=dtype)))
    assert found.dtype == torch.float32
    assert_close(found, torch.tensor([500.0, 1.0]))


def test_the_widest_precision_is_kept() -> None:
    found = gradient_norms(Modalities(text=modality([0.5]), audio=modality([1e-100, 0.0], dtype=torch.float64)))
    assert_close(found, torch.tensor([0.5, 1e-100], dtype=torch.float64), atol=0.0, rtol=1e-9)


def test_against_a_literal_loop() -> None:
    torch.manual_seed(0)
    modules = {"text": nn.GRU(5, 4, bidirectional=True), "audio": nn.Linear(3, 2), "vision": nn.Conv2d(1, 2, 3)}
    modalities = Modalities(**modules)
    expected = []
    for module in modules.values():
        squares = []
        for parameter in module.parameters():
            parameter.grad = torch.randn_like(parameter)
            squares.append(sum(float(g) ** 2 for g in parameter.grad.flatten()))
        expected.append(math.sqrt(sum(squares) / len(squares)))
    assert_close(gradient_norms(modalities), torch.tensor(expected))


def test_no_gradient_anywhere_is_an_error() -> None:
    with pytest.raises(RuntimeError, match=r"No gradient found for any of \['text', 'audio'\]"):
        gradient_norms(Modalities(text=modality(None), audio=modality(None)))


def test_sharded_gradients_are_refused() -> None:
    class Sharded(torch.Tensor):
        device_mesh = None

    modalities = Modalities(text=modality([1.0]), audio=modality([1.0]))

    class Groups:
        def __iter__(self):  # type: ignore[no-untyped-def]
            return iter(modalities)

        def gradients(self, name: str) -> list[torch.Tensor]:
            return [g.as_subclass(Sharded) for g in modalities.gradients(name)]

    with pytest.raises(RuntimeError, match=r"sharded over ranks \(FSDP\)"):
        gradient_norms(Groups())
