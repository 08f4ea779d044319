from __future__ import annotations

import logging
import pickle
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from equipoise.training.checkpoint import (
    load_checkpoint,
    load_optimizer_tensors,
    optimizer_tensors,
    save_checkpoint,
)
from equipoise.training.optimizers import OptimizerName, make_optimizer

FILES = ["model.safetensors", "other.safetensors", "state.json", "sha256.json"]


def tensors(value: int) -> dict[str, dict[str, Tensor]]:
    shared = torch.full((3, 2), value / 7, dtype=torch.float64)
    return {
        "model": {
            "w": shared,
            "tied": shared,
            "view": shared.T,
            "scalar": torch.tensor(value),
            "on": torch.tensor(True),
        },
        "other": {},
    }


def save(folder: Path, value: int) -> Path:
    return save_checkpoint(folder, f"epoch-{value}", tensors(value), {"value": value, "ratio": value / 3})


def loaded_value(folder: Path) -> object:
    found = load_checkpoint(folder)
    assert found is not None
    return found.state["value"]


def test_comes_back_bit_by_bit(tmp_path: Path) -> None:
    save(tmp_path / "checkpoint", 1)
    found = load_checkpoint(tmp_path / "checkpoint")
    assert found is not None
    assert found.state == {"value": 1, "ratio": 1 / 3}
    assert found.tensors.keys() == {"model", "other"}
    for name, value in tensors(1)["model"].items():
        assert found.tensors["model"][name].dtype == value.dtype
        assert torch.equal(found.tensors["model"][name], value)


def test_nothing_there_is_a_fresh_start(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "none") is None


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    for value in range(4):
        save(tmp_path, value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-2", "epoch-3", "latest"]
    assert loaded_value(tmp_path) == 3


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("harm", ["flip", "cut", "remove", "pickle"])
def test_a_broken_file_falls_back_with_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, file: str, harm: str
) -> None:
    save(tmp_path, 1)
    path = save(tmp_path, 2) / file
    content = bytearray(path.read_bytes())
    if harm == "flip":
        content[len(content) // 2] ^= 1
    path.write_bytes({"cut": bytes(content[:-1]), "pickle": pickle.dumps([1])}.get(harm, bytes(content)))
    if harm == "remove":
        path.unlink()
    with caplog.at_level(logging.WARNING):
        assert loaded_value(tmp_path) == 1
    (record,) = caplog.records
    assert "epoch-2 is broken" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_the_run_goes_on_past_a_broken_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (save(tmp_path, 3) / "model.safetensors").write_bytes(b"")
    save(tmp_path, 2)
    assert loaded_value(tmp_path) == 2
    assert not (tmp_path / "epoch-3").exists()
    assert (tmp_path / "epoch-1").exists()


def test_all_broken_is_told_in_one_line(tmp_path: Path) -> None:
    for value in (1, 2):
        (save(tmp_path, value) / "state.json").write_bytes(b"")
    with pytest.raises(ValueError, match=r"No checkpoint in .* can be read \(epoch-2: .*; epoch-1: .*\)") as error:
        load_checkpoint(tmp_path)
    assert "\n" not in str(error.value)


def test_a_folder_that_was_being_written_is_no_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / ".writing").mkdir()
    (tmp_path / ".writing" / "model.safetensors").write_bytes(b"half")
    assert loaded_value(tmp_path) == 1
    save(tmp_path, 2)
    assert not (tmp_path / ".writing").exists()


def test_renamed_but_not_yet_pointed_to_is_passed_over(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    (tmp_path / "latest").write_text("epoch-1")  # as if killed between the two moves
    assert loaded_value(tmp_path) == 1
    save(tmp_path, 2)
    assert loaded_value(tmp_path) == 2


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes: writing more fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_loses_no_earlier_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    big = {"model": {"w": torch.zeros(10_000)}}
    with (
        disk_of(4096),
        pytest.raises(OSError, match=r"Could not write the checkpoint .*epoch-3: File too large") as error,
    ):
        save_checkpoint(tmp_path, "epoch-3", big, {"value": 3})
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-1", "epoch-2", "latest"]
    assert loaded_value(tmp_path) == 2
    save_checkpoint(tmp_path, "epoch-3", big, {"value": 3})
    assert loaded_value(tmp_path) == 3


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_an_optimizer_goes_on_as_if_never_stopped(name: OptimizerName) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(8, 3), torch.randn(8, 1)

    def steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    model = nn.Linear(3, 1)
    optimizer = make_optimizer(model, name, lr=0.1, weight_decay=0.1)
    steps(model, optimizer, 3)
    again = nn.Linear(3, 1)
    again.load_state_dict(model.state_dict())
    restored = make_optimizer(again, name, lr=0.1, weight_decay=0.1)
    load_optimizer_tensors(restored, {key: value.clone() for key, value in optimizer_tensors(optimizer).items()})
    steps(model, optimizer, 2)
    steps(again, restored, 2)
    assert torch.equal(model.weight, again.weight)
