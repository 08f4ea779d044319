"""The audit of one run directory or saved model, computed once and kept."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise.cli.audit_controls import Others, alone_outputs, strengths_by_epoch, trained_controls
from equipoise.cli.audited import Audited, opened
from equipoise.cli.kept import once, read_json
from equipoise.cli.progress import Callback, progress

if TYPE_CHECKING:
    from equipoise.diagnostics.audit_report import Report
    from equipoise.diagnostics.controls import Controls

FOLDER = "diagnosis"
VERSION = 3  # raised whenever the same settings give another report


def diagnose(
    folder: Path,
    data: str | None,
    split: str,
    out: Path,
    *,
    controls: bool = False,
    maps: bool = False,
    robustness: bool = False,
) -> Report:
    """The report of a run or saved model.

    Args:
        folder: what `equipoise train` or `equipoise export` wrote.
        data: another dataset, or where it is now.
        split: to audit it on.
        out: where what is computed is kept, under a digest of weights, data and settings.
        controls: train what the run is compared with, in ``folder/controls``.
        maps: draw representations, those of the unbalanced control too where there is one.
        robustness: measure what missing and noisy inputs cost, as `equipoise robustness` does.

    Raises:
        FileNotFoundError: no run, or no dataset.
        ValueError: a run that has not finished, data or a split that do not fit, or controls of a saved model.
        OSError: the report can't be written.
    """
    from equipoise.cli.measure import data_digest
    from equipoise.diagnostics.audit_report import Report
    from equipoise.training.kept_epochs import kept_epochs, spread_out

    found = opened(folder, data)
    found.dataset.split(split)
    if len(found.modalities) < 2:
        raise ValueError(f"A diagnosis compares modalities. {folder} reads {found.modalities[0]} alone.")
    if controls and (found.config is None or data is not None):
        raise ValueError("`--with-controls` trains a run again on its own data: it takes a run directory, no `--data`.")
    out.mkdir(parents=True, exist_ok=True)
    epochs = kept_epochs(folder) if controls else {}
    with progress(1 + controls + maps + robustness + bool(epochs)) as start:
        table = trained_controls(folder, start("controls")) if controls else None
        others = alone_outputs(folder, found, split) if controls else {}
        key = _key(found, split, others)
        report = Report(once(out, "audit", key, start("diagnosis"), partial(_audit, found, split, others)))
        if maps:
            models = _mapped(folder, found, controls)
            of = {"data": data_digest(found.dataset), "split": split, "models": _digests(models)}
            report = report.with_maps(once(out, "maps", of, start("maps"), partial(_maps, models, split)))
        if epochs and others:
            chosen = spread_out(epochs)
            of = key | {"epochs": list(chosen)}
            work = partial(strengths_by_epoch, chosen, found, split, others)
            report = report.with_competition(once(out, "competition", of, start("competition"), work))
        rows = _damaged(folder, found, split, out, start("robustness")) if robustness else None
    return _with_run(report, folder, found, split, table, rows, out)


def _audit(found: Audited, split: str, others: Others, show: Callback) -> dict[str, Any]:
    from equipoise.diagnostics.auditing import audit

    return audit(
        found.model,
        found.dataset,
        modalities=found.modalities,
        split=split,
        concepts={name: concept for name, (concept, _) in others.items()},
        movement={name: moved for name, (_, moved) in others.items() if moved is not None},
        progress=lambda done, total: show(done, total, {}),
    ).content


def _mapped(folder: Path, found: Audited, controls: bool) -> dict[str, Audited]:
    """The models whose maps are drawn: the run, and with its controls the unbalanced one."""
    from equipoise.diagnostics.controls import FOLDER as CONTROLS

    models = {"the model" if found.config is None else "the run": found}
    if controls and (folder / CONTROLS / "unbalanced" / "test.json").is_file():
        models["unbalanced"] = opened(folder / CONTROLS / "unbalanced", None)
    return models


def _maps(models: Mapping[str, Audited], split: str, show: Callback) -> dict[str, Any]:
    from equipoise.diagnostics.floors import groups_of
    from equipoise.diagnostics.maps import measure_maps

    drawn = {}
    for number, (name, each) in enumerate(models.items()):
        rows = each.dataset.split(split)

        def step(done: int, total: int, number: int = number) -> None:
            show(100 * number + 100 * done // total, 100 * len(models), {})

        groups = groups_of(each.dataset, rows.rows)
        drawn[name] = measure_maps(each.model, rows, each.modalities, groups=groups, progress=step)
    return drawn


def _damaged(folder: Path, found: Audited, split: str, out: Path, show: Callback) -> list[dict[str, Any]]:
    """What `equipoise robustness` measures by default. Of a saved model it is kept beside the report."""
    from equipoise.cli.measure import DRAWS, FRAMES, NOISE, RATES, check_settings, measure_model

    about: dict[str, Any] = {"model": type(found.model).__name__}
    if found.config is not None:
        about = {name: getattr(found.config, name).model_dump(mode="json") for name in ("model", "text")}
    return measure_model(
        found.model,
        found.modalities,
        found.dataset,
        out if found.config is None else folder,
        check_settings(RATES, FRAMES, NOISE, DRAWS, split),
        show,
        about=about,
        train=found.trained_on or found.dataset,
    )


def _with_run(
    report: Report,
    folder: Path,
    found: Audited,
    split: str,
    table: Controls | None,
    rows: list[dict[str, Any]] | None,
    out: Path,
) -> Report:
    """What the run's own files add, read anew each time."""
    from equipoise.cli.measure import data_digest, weights_digest
    from equipoise.diagnostics.traces import read_trace
    from equipoise.report.runs import read_run

    if found.config is not None:
        run = read_run(folder)
        if run.steps and run.modalities:
            report = report.with_trace(read_trace(run.epochs, run.steps))
    if table is not None:
        report = report.with_controls(table)
    if rows is not None:
        return report.with_robustness(rows)
    wanted = {"split": split, "weights": weights_digest(found.model), "data": data_digest(found.dataset)}
    for file in sorted(((out if found.config is None else folder) / "robustness").glob("rows-*.json")):
        kept = read_json(file)
        if kept and {name: kept.get("key", {}).get(name) for name in wanted} == wanted:
            return report.with_robustness(kept["rows"])
    return report


def _digests(models: Mapping[str, Audited]) -> dict[str, str]:
    from equipoise.cli.measure import weights_digest

    return {name: weights_digest(each.model) for name, each in models.items()}


def _key(found: Audited, split: str, others: Others) -> dict[str, Any]:
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
