"""The weights after every epoch, for what is asked of a training afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor, nn

from equipoise.training.checkpoint import own_copies

FOLDER, SUFFIX = "epochs", ".safetensors"


def epoch_keeper(run_dir: Path) -> Callable[[int, nn.Module], None]:
    """Something that writes a model's weights to ``run_dir/epochs/0001.safetensors``, named by the epoch."""

    def keep(epoch: int, model: nn.Module) -> None:
        from safetensors.torch import save

        from equipoise.training.files import replace_file

        (run_dir / FOLDER).mkdir(parents=True, exist_ok=True)
        replace_file(run_dir / FOLDER / f"{epoch:04d}{SUFFIX}", save(own_copies(model.state_dict())))

    return keep


def kept_epochs(run_dir: str | Path) -> dict[int, Path]:
    """``{epoch: file}`` of a run directory, in order; empty where it kept none."""
    files = sorted((Path(run_dir) / FOLDER).glob(f"*{SUFFIX}"))
    return {int(file.stem): file for file in files if file.stem.isdigit()}


def spread_out(epochs: Mapping[int, Path], most: int = 20) -> dict[int, Path]:
    """At most so many of them, evenly, with the first and the last.

    >>> list(spread_out({epoch: Path() for epoch in range(1, 10)}, 3))
    [1, 5, 9]
    """
    listed, count = list(epochs), min(most, len(epochs))
    places = [number * (len(listed) - 1) // max(1, count - 1) for number in range(count)]
    return {listed[place]: epochs[listed[place]] for place in places}


def read_epoch(file: Path) -> dict[str, Tensor]:
    """The weights, on the CPU.

    Raises:
        OSError: it can't be read.
    """
    from safetensors.torch import load_file

    return load_file(file)
