"""Checkpoints: safetensors and JSON in a folder that is complete or not there at all."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor
from torch.optim import Optimizer

from equipoise.training.files import replace_file, sync_folder, write_durably

logger = logging.getLogger(__name__)

_TEMPORARY = ".writing"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What one checkpoint holds.

    Attributes:
        name: the folder's name.
        tensors: ``{part: {name: tensor}}``, one safetensors file a part.
        state: counters and the like, as JSON holds them.
    """

    name: str
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


def save_checkpoint(
    folder: str | Path,
    name: str,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    *,
    keep: int = 2,
) -> Path:
    """Write a checkpoint ``folder/name``, point ``folder/latest`` to it, and keep it and the one before.

    Every file is on disk before the folder gets its name, and the pointer moves last: a kill or a full disk at any
    moment leaves the checkpoints before untouched.

    Args:
        folder: where checkpoints live.
        name: sorts after the names of earlier checkpoints.
        tensors: ``{part: {name: tensor}}``.
        state: anything that JSON can hold.
        keep: checkpoints left afterwards, this one included.

    Raises:
        OSError: the disk is full or not writable.
    """
    folder = Path(folder)
    temporary = folder / _TEMPORARY
    final = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        contents = {
            f"{part}.safetensors": safetensors.torch.save(own_copies(values)) for part, values in tensors.items()
        }
        contents["state.json"] = json.dumps(state, indent=1).encode()
        hashes = {file: hashlib.sha256(content).hexdigest() for file, content in contents.items()}
        for file, content in contents.items():
            write_durably(temporary / file, content)
        write_durably(temporary / "sha256.json", json.dumps(hashes, indent=1).encode())
        sync_folder(temporary)
        shutil.rmtree(final, ignore_errors=True)  # only ever one that a resumed run passed over
        os.replace(temporary, final)
        sync_folder(folder)
        replace_file(folder / "latest", name.encode())
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OSError(
            f"Could not write the checkpoint {final}: {reason}. The checkpoint before it is intact: "
            "make room and run the same command again."
        ) from None
    # Names beyond this one are left from a run that went on from an earlier checkpoint.
    kept = [found for found in _names(folder) if found <= name][-keep:]
    for found in set(_names(folder)) - set(kept):
        shutil.rmtree(folder / found, ignore_errors=True)
    return final


def load_checkpoint(folder: str | Path) -> Checkpoint | None:
    """The latest checkpoint whose files are what was written; None where there is none at all.

    A broken one is passed over with one line of warning. Nothing is unpickled.

    Raises:
        ValueError: there are checkpoints, and all are broken.
    """
    folder = Path(folder)
    names = _names(folder)
    if not names:
        return None
    pointer = folder / "latest"
    latest = pointer.read_text().strip() if pointer.is_file() else names[-1]
    # A folder beyond the pointer was whole too when it was renamed, but the pointer says what the run relies on.
    candidates = [latest, *(name for name in reversed(names) if name != latest)]
    problems: list[str] = []
    for name in candidates:
        try:
            found = _read(folder / name)
        except (OSError, ValueError, SafetensorError) as error:
            problems.append(f"{name}: {error}")
            continue
        if problems:
            logger.warning("Checkpoint %s is broken (%s): going on from %s.", folder / latest, problems[0], name)
        return found
    raise ValueError(
        f"No checkpoint in {folder} can be read ({'; '.join(problems)}). "
        "Start anew without resuming (`--no-resume`), or restore the folder."
    )


def has_checkpoint(folder: str | Path) -> bool:
    """Whether a checkpoint was ever finished there; it may be broken by now."""
    return bool(_names(Path(folder)))


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimizer's running state as ``{"<parameter>.<key>": tensor}``."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{key}": value
        for index, values in state.items()
        for key, value in values.items()
        if isinstance(value, Tensor)
    }


def load_optimizer_tensors(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restore what `optimizer_tensors` gave; learning rates and the like stay as the optimizer was built."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _names(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(child.name for child in folder.iterdir() if child.is_dir() and child.name != _TEMPORARY)


def own_copies(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A copy of each tensor on the CPU, in memory of its own: the format refuses tied weights, which share theirs."""
    return {name: value.detach().cpu().clone().contiguous() for name, value in values.items()}


def _read(folder: Path) -> Checkpoint:
    hashes = json.loads((folder / "sha256.json").read_bytes())
    tensors: dict[str, dict[str, Tensor]] = {}
    state: dict[str, Any] = {}
    for file, expected in hashes.items():
        content = (folder / file).read_bytes()
        if hashlib.sha256(content).hexdigest() != expected:
            raise ValueError(f"{file} does not match its SHA-256")
        if file == "state.json":
            state = json.loads(content)
        else:
            tensors[file.removesuffix(".safetensors")] = safetensors.torch.load(content)
    return Checkpoint(folder.name, tensors, state)
