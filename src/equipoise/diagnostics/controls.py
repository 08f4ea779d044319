"""What a run should be compared with: each modality alone, their ensemble, the model without its balancer."""

from __future__ import annotations

import copy
import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import yaml

from equipoise.data import load
from equipoise.diagnostics.estimates import Estimate, estimate, plain
from equipoise.diagnostics.scores import Metric, check_metric, points
from equipoise.functional.statistics import holm
from equipoise.metrics import evaluate_metrics

Floats = npt.NDArray[np.float64]
Config = dict[str, Any]
Train = Callable[[Config, Path], object]
Kind = Literal["run", "alone", "ensemble", "unbalanced", "multi-loss"]

FOLDER = "controls"


@dataclass(frozen=True)
class Control:
    """One row of the table, on the run's test samples.

    Attributes:
        name: such as ``"text alone"``.
        kind: what it is.
        metrics: as a run's ``test.json`` has them; empty where there is none.
        score: the metric that is compared; higher is better.
        lead: the run's score minus this one's, by sample; its p is corrected for the number of rows (Holm). None for
            the run itself.
        epochs: it was trained for; of an ensemble all its members' together.
        seconds: of training.
        reason: why there is none, in words; such a row has no score.
    """

    name: str
    kind: Kind
    metrics: dict[str, float]
    score: Estimate | None = None
    lead: Estimate | None = None
    epochs: int = 0
    seconds: float = 0.0
    reason: str | None = None


@dataclass(frozen=True)
class Controls:
    """The table.

    Attributes:
        metric: of score and lead.
        samples: of the test split.
        rows: the run first.
    """

    metric: Metric
    samples: int
    rows: list[Control]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        found: dict[str, Any] = plain(self)
        return found


def control_configs(
    config: Config, modalities: list[str], *, multi_loss: bool = True
) -> dict[str, tuple[Kind, Config]]:
    """``{folder: (kind, config)}`` of what has to be trained beside a run.

    All else stays as it was: seed, epochs, batches, learning rate, how an epoch is chosen. So the budget is equal,
    though the settings may have been chosen for the run.

    Args:
        config: of the run, as ``config.yaml`` has it.
        modalities: that the run reads.
        multi_loss: also the model without balancer with every modality's own loss added, at weight 1. A run that adds
            them itself has its unbalanced model for that.
    """
    bare = copy.deepcopy(config) | {"balancer": []}
    bare["train"]["keep_epochs"] = False
    found: dict[str, tuple[Kind, Config]] = {}
    for name in modalities if len(modalities) > 1 else []:
        alone = copy.deepcopy(bare) | {"modalities": [name]}
        alone["train"]["unimodal_weight"] = 0.0
        if name != "text":
            alone["text"]["encoder"] = None
        found[f"alone-{name}"] = ("alone", alone)
    if config["balancer"]:
        found["unbalanced"] = ("unbalanced", bare)
    if multi_loss and len(modalities) > 1 and not config["train"]["unimodal_weight"]:
        found["multi-loss"] = ("multi-loss", bare | {"train": bare["train"] | {"unimodal_weight": 1.0}})
    return found


def run_controls(
    run_dir: str | Path,
    train: Train,
    *,
    metric: Metric | None = None,
    multi_loss: bool = True,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Controls:
    """Train the controls of a finished run in ``run_dir/controls``, and compare them on its test samples.

    Each control is a run directory of its own. One that is finished is read and not trained again, as long as
    ``train`` returns at once where that is so, as ``equipoise.training.run.run`` does.

    The ensemble takes what each modality's model says alone: of values the mean; of classes the sum of logits and, in a
    row of its own, the mean of probabilities. Nothing is trained for it.

    Args:
        run_dir: of the run.
        train: ``(config, folder)``: trains a config (a nested mapping, as ``config.yaml``) into a run directory. A
            ValueError says that the model can't be trained so, as one that needs two modalities can't on one; it
            becomes the row's reason.
        metric: that is compared; None for ``accuracy`` or ``r2``.
        multi_loss: as `control_configs`.
        seed: of resamples and of the sign-flip test.
        progress: called with (controls done, controls in all).

    Raises:
        FileNotFoundError: no finished run there.
        ValueError: a control's test samples are not the run's.
    """
    folder = Path(run_dir)
    config = yaml.safe_load(_text(folder / "config.yaml"))
    found = json.loads(_text(folder / "test.json"))
    manifest = load(config["data"]).manifest
    task, scale = manifest.task, manifest.labels.scale
    chosen = check_metric(metric, task)
    ids, target, outputs = read_predictions(folder, task)
    rows = [_trained("the run", "run", found)]
    said: dict[str, Floats] = {"the run": outputs}
    members: dict[str, Floats] = {}
    wanted = control_configs(config, list(found["modalities"]), multi_loss=multi_loss)
    for done, (name, (kind, given)) in enumerate(wanted.items()):
        place = folder / FOLDER / name
        title = f"{name.removeprefix('alone-')} alone" if kind == "alone" else name
        if progress is not None:
            progress(done, len(wanted))
        try:
            train(given, place)
        except ValueError as error:
            rows.append(Control(title, kind, {}, reason=str(error)))
            continue
        theirs, _, said[title] = read_predictions(place, task)
        if theirs != ids:
            raise ValueError(f"{place} should predict the test samples of {folder}. Found others: delete it.")
        rows.append(_trained(title, kind, json.loads(_text(place / "test.json"))))
        if kind == "alone":
            members[title] = said[title]
    if progress is not None:
        progress(len(wanted), len(wanted))

    alone = [row for row in rows if row.kind == "alone"]
    if len(alone) > 1:
        without = [row.name for row in alone if row.reason is not None]
        for title, mixed in ({} if without else ensembles(list(members.values()), task)).items():
            said[title] = mixed
            metrics = evaluate_metrics(task, mixed.astype(np.float32), target, scale=scale)
            epochs, seconds = sum(row.epochs for row in alone), sum(row.seconds for row in alone)
            rows.append(Control(title, "ensemble", metrics, epochs=epochs, seconds=seconds))
        if without:
            rows.append(Control("ensemble", "ensemble", {}, reason=f"there is no {' and no '.join(without)}"))
    return Controls(chosen, len(ids), _compared(rows, said, target, chosen, seed))


def _compared(
    rows: list[Control], said: Mapping[str, Floats], target: npt.NDArray[Any], metric: Metric, seed: int
) -> list[Control]:
    ours = points(metric, said["the run"], target)
    found = []
    for row in rows:
        if row.reason is None:
            theirs = points(metric, said[row.name], target)
            row = replace(row, score=estimate(theirs, test=False, seed=seed))
            if row.kind != "run":
                row = replace(row, lead=estimate(ours - theirs, seed=seed))
        found.append(row)
    tested = [row.lead.p for row in found if row.lead is not None and row.lead.p is not None]
    corrected = iter(holm(tested) if tested else [])
    return [row if row.lead is None else replace(row, lead=replace(row.lead, p=next(corrected))) for row in found]


def ensembles(members: list[Floats], task: str) -> dict[str, Floats]:
    """``{name: outputs}`` of several models together, from what `read_predictions` says of each: untrained mixtures."""
    if task == "regression":
        return {"ensemble": np.mean(members, axis=0)}
    # Log-probabilities are logits, up to a number a sample that changes nothing.
    mean = np.log(np.mean([np.exp(each) for each in members], axis=0))
    return {"ensemble, logits": np.sum(members, axis=0), "ensemble, probabilities": mean}


def _trained(name: str, kind: Kind, report: Mapping[str, Any]) -> Control:
    metrics = {key: float("nan") if value is None else value for key, value in report["metrics"].items()}
    epochs = report["epochs"]
    return Control(name, kind, metrics, epochs=epochs, seconds=epochs * report["seconds_per_epoch"])


def read_predictions(folder: Path, task: str) -> tuple[list[str], npt.NDArray[Any], Floats]:
    """Ids, targets, and outputs or log-probabilities of the test split."""
    rows = list(csv.reader(_text(folder / "predictions.csv").splitlines()))
    header, body = rows[0], rows[1:]
    targets = [i for i, name in enumerate(header) if name == "target" or name.startswith("target/")]
    if task == "classification":
        said = [i for i, name in enumerate(header) if name.startswith("probability/")]
    else:
        said = [header.index(header[i].replace("target", "prediction", 1)) for i in targets]
    target = np.array([[float(row[i]) for i in targets] for row in body])
    outputs = np.array([[float(row[i]) for i in said] for row in body])
    if task == "classification":
        tiny = np.finfo(np.float32).tiny  # a probability that was rounded to zero
        return [row[0] for row in body], target[:, 0].astype(np.int64), np.log(np.maximum(outputs, tiny))
    single = len(targets) == 1
    return [row[0] for row in body], target[:, 0] if single else target, outputs[:, 0] if single else outputs


def _text(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found. Controls are for a finished run (`equipoise train`).")
    return path.read_text(encoding="utf-8")
