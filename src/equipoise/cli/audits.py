"""The audit of one run directory or saved model, computed once and kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise.cli.progress import progress

if TYPE_CHECKING:
    from torch import nn

    from equipoise.data import Dataset
    from equipoise.diagnostics.audit_report import Report
    from equipoise.diagnostics.controls import Controls
    from equipoise.training.config import RunConfig

FOLDER = "diagnosis"
VERSION = 2  # raised whenever the same settings give another report


@dataclass(frozen=True)
class _Audited:
    """A model with what it reads; ``config`` of a run."""

    model: nn.Module
    dataset: Dataset
    modalities: tuple[str, ...]
    config: RunConfig | None


def diagnose(folder: Path, data: str | None, split: str, out: Path, *, controls: bool = False) -> Report:
    """The report of a run or saved model.

    Args:
        folder: what `equipoise train` or `equipoise export` wrote.
        data: another dataset, or where it is now.
        split: to audit it on.
        out: where what is computed is kept, under a digest of weights, data and settings.
        controls: train what the run is compared with, in ``folder/controls``.

    Raises:
        FileNotFoundError: no run, or no dataset.
        ValueError: a run that has not finished, data or a split that do not fit, or controls of a saved model.
        OSError: the report can't be written.
    """
    from equipoise.diagnostics.auditing import audit

    found = _opened(folder, data)
    found.dataset.split(split)
    if len(found.modalities) < 2:
        raise ValueError(f"A diagnosis compares modalities. {folder} reads {found.modalities[0]} alone.")
    if controls and (found.config is None or data is not None):
        raise ValueError("`--with-controls` trains a run again on its own data: it takes a run directory, no `--data`.")
    out.mkdir(parents=True, exist_ok=True)
    with progress(1 + controls) as start:
        table = _controls(folder, start("controls")) if controls else None
        others = _alone(folder, found, split) if controls else {}
        show = start("diagnosis")
        key = _key(found, split, others)
        file = out / f"audit-{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]}.json"
        report = _kept(file, key)
        if report is None:
            report = audit(
                found.model,
                found.dataset,
                modalities=found.modalities,
                split=split,
                concepts={name: concept for name, (concept, _) in others.items()},
                movement={name: moved for name, (_, moved) in others.items() if moved is not None},
                progress=lambda done, total: show(done, total, {}),
            )
            _keep(file, key, report)
        else:
            show(1, 1, {})
    return _with_run(report, folder, found, split, table)


def _opened(folder: Path, data: str | None) -> _Audited:
    from equipoise.cli.evaluate import check_fit, open_run
    from equipoise.cli.saved import is_saved_model, open_saved
    from equipoise.report.runs import run_folders

    if is_saved_model(folder):
        model, info, dataset = open_saved(folder, data)
        return _Audited(model, dataset, tuple(info.modalities), None)
    if (seeds := run_folders(folder)) != [folder]:
        raise ValueError(f"{folder} holds {len(seeds)} seeds. Name one of them: {seeds[0]}.")
    trained, dataset = open_run(folder, data)
    check_fit(trained.dataset.manifest, dataset.manifest, trained.modalities)
    return _Audited(trained.model, dataset, trained.modalities, trained.config)


def _controls(folder: Path, show: Callable[[int, int, Any], None]) -> Controls:
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


def _alone(folder: Path, found: _Audited, split: str) -> dict[str, tuple[Any, dict[str, Any] | None]]:
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


def _with_run(report: Report, folder: Path, found: _Audited, split: str, table: Controls | None) -> Report:
    """What the run's own files add, read anew each time."""
    from equipoise.cli.measure import data_digest, weights_digest
    from equipoise.diagnostics.traces import read_trace
    from equipoise.report.runs import read_run

    if found.config is None:
        return report
    run = read_run(folder)
    if run.steps and run.modalities:
        report = report.with_trace(read_trace(run.epochs, run.steps))
    if table is not None:
        report = report.with_controls(table)
    wanted = {"split": split, "weights": weights_digest(found.model), "data": data_digest(found.dataset)}
    for file in sorted((folder / "robustness").glob("rows-*.json")):
        kept = _json(file)
        if kept and {name: kept.get("key", {}).get(name) for name in wanted} == wanted:
            return report.with_robustness(kept["rows"])
    return report


def _key(found: _Audited, split: str, others: dict[str, tuple[Any, Any]]) -> dict[str, Any]:
    from equipoise.cli.measure import data_digest, weights_digest

    config = found.config
    return {
        "version": VERSION,
        "weights": weights_digest(found.model),
        "data": data_digest(found.dataset),
        "model": type(found.model).__name__ if config is None else config.model.model_dump(mode="json"),
        "text": None if config is None else config.text.model_dump(mode="json"),
        "modalities": list(found.modalities),
        "split": split,
        "concepts": {name: hashlib.sha256(said.tobytes()).hexdigest() for name, (said, _) in others.items()},
    }


def _kept(file: Path, key: dict[str, Any]) -> Report | None:
    from equipoise.diagnostics.audit_report import Report

    content = _json(file)
    return Report(content["report"]) if content and content.get("key") == key and "report" in content else None


def _keep(file: Path, key: dict[str, Any], report: Report) -> None:
    from equipoise.training.results import write_json

    write_json(file, {"key": key, "report": report.content})


def _json(file: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None  # not computed yet, or half of it lost: computed again
    return content if isinstance(content, dict) else None
