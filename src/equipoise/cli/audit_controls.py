"""What a run is audited against: its controls, and the strength of competition by what they say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise.cli.audited import Audited
from equipoise.cli.progress import Callback

if TYPE_CHECKING:
    from equipoise.diagnostics.controls import Controls

Others = Mapping[str, tuple[Any, dict[str, Any] | None]]


def trained_controls(folder: Path, show: Callable[[int, int, Any], None]) -> Controls:
    """The run's controls: trained where they are not there yet."""
    from equipoise.diagnostics.controls import run_controls
    from equipoise.training.config import make_config
    from equipoise.training.run import run

    at = [0, 1]

    def place(done: int, total: int) -> None:
        at[:] = done, total
        show(100 * done, 100 * total, {})

    def train(config: dict[str, Any], where: Path) -> None:
        def step(done: int, total: int, row: Any) -> None:
            show(100 * at[0] + 100 * done // max(1, total), 100 * at[1], row)

        run(make_config(config), where, progress=step)

    return run_controls(folder, train, multi_loss=False, progress=place)


def alone_outputs(folder: Path, found: Audited, split: str) -> dict[str, tuple[Any, dict[str, Any] | None]]:
    """``{m: (what the model of m alone says of the split, how far m's encoder moved)}``."""
    from equipoise.diagnostics.controls import FOLDER as CONTROLS
    from equipoise.diagnostics.movement import movements
    from equipoise.diagnostics.robustness import predict
    from equipoise.training.prepare import initial_model
    from equipoise.training.run import load_run

    assert found.config is not None
    runs = {}
    for name in found.modalities:
        if (folder / CONTROLS / f"alone-{name}" / "test.json").is_file():
            runs[name] = load_run(folder / CONTROLS / f"alone-{name}")
    ends = {name: (initial_model(each.config, each.dataset, (name,)), each.model) for name, each in runs.items()}
    try:
        started = initial_model(found.config, found.dataset, found.modalities)
        moved = movements(started, found.model, ends)
    except ValueError:  # an encoder that is another network alone
        moved = {}
    return {
        name: (
            predict(each.model, each.dataset.split(split), (name,)).double().numpy(),
            moved[name].to_dict() if name in moved else None,
        )
        for name, each in runs.items()
    }


def strengths_by_epoch(
    epochs: Mapping[int, Path], found: Audited, split: str, others: Others, show: Callback
) -> list[dict[str, Any]]:
    """The competition strength of every modality at every kept epoch, as a report takes it."""
    from equipoise.diagnostics.competition import competition_by_epoch
    from equipoise.training.kept_epochs import read_epoch

    concepts = {name: concept for name, (concept, _) in others.items()}
    strengths = competition_by_epoch(
        found.model,
        (read_epoch(file) for file in epochs.values()),
        found.dataset.split(split),
        concepts,
        progress=lambda done, _: show(done, len(epochs), {}),
    )
    return [
        {"epoch": epoch, "strength": {name: each.to_dict() for name, each in strength.items()}}
        for epoch, strength in zip(epochs, strengths, strict=True)
    ]
