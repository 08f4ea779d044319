from __future__ import annotations

import pytest
import torch
from torch import nn

from equipoise import Modalities


def test_groups_of_every_kind() -> None:
    module, part, alone = nn.Linear(2, 3), nn.Linear(3, 1), nn.Parameter(torch.zeros(2))
    modalities = Modalities(text=module, audio=[part, alone], vision=nn.Linear(1, 1).parameters())
    assert modalities.names == ("text", "audio", "vision")
    assert list(modalities) == ["text", "audio", "vision"]
    assert len(modalities) == 3
    assert "audio" in modalities
    assert "smell" not in modalities
    assert modalities.parameters("text") == [module.weight, module.bias]
    assert [id(p) for p in modalities.parameters("audio")] == [id(part.weight), id(part.bias), id(alone)]
    assert repr(modalities) == "Modalities(text=2, audio=3, vision=2)"


def test_from_a_mapping() -> None:
    encoders = nn.ModuleDict({"text": nn.Linear(1, 1), "audio": nn.Linear(1, 1)})
    assert Modalities(**encoders).names == ("text", "audio")


def test_tied_weights_within_one_modality_count_once() -> None:
    tied = nn.Linear(2, 2, bias=False)
    assert len(Modalities(text=[tied, tied, *tied.parameters()], audio=nn.Linear(1, 1)).parameters("text")) == 1


def test_gradients_are_those_that_are_there() -> None:
    modalities = Modalities(text=nn.Linear(2, 3), audio=nn.Linear(1, 1))
    assert modalities.gradients("text") == []
    weight, _ = modalities.parameters("text")
    weight.grad = torch.ones_like(weight)
    (found,) = modalities.gradients("text")
    assert found is weight.grad


def test_one_name_is_not_enough() -> None:
    with pytest.raises(ValueError, match=r"at least two names. Found \['text'\]"):
        Modalities(text=nn.Linear(1, 1))


def test_a_shared_parameter_is_refused() -> None:
    shared = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"Found one of shape \(2, 2\) under `text` and `audio`"):
        Modalities(text=shared, audio=[nn.Linear(1, 1), shared])


@pytest.mark.parametrize("group", [nn.ReLU(), [], nn.Linear(2, 2).requires_grad_(False)], ids=["no", "empty", "frozen"])
def test_nothing_to_train_is_refused(group: nn.Module) -> None:
    with pytest.raises(ValueError, match="Modality `audio` should own at least one trainable parameter"):
        Modalities(text=nn.Linear(1, 1), audio=group)


@pytest.mark.parametrize(
    "group",
    ["audio", {"audio": nn.Linear(1, 1)}, nn.Linear(1, 1).named_parameters(), torch.zeros(2, requires_grad=True), 3],
    ids=["a name", "a dict", "named", "a tensor", "a number"],
)
def test_what_holds_no_parameters_is_refused(group: object) -> None:
    with pytest.raises(TypeError, match="Modality `audio` should be a module or an iterable of parameters or modules"):
        Modalities(text=nn.Linear(1, 1), audio=group)  # type: ignore[arg-type]
