"""One config to one run directory; several seeds to several."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from equipoise.data import Dataset
from equipoise.training.accelerator import make_accelerator
from equipoise.training.checkpoint import has_checkpoint, load_checkpoint
from equipoise.training.config import RunConfig, dump_config, load_config
from equipoise.training.evaluate import evaluate
from equipoise.training.files import read_json, replace_file
from equipoise.training.foreign import SOURCE, is_foreign, keep_source
from equipoise.training.kept_epochs import epoch_keeper
from equipoise.training.log import TABLES
from equipoise.training.loop import fit
from equipoise.training.memory import freed_memory_kept
from equipoise.training.prepare import (
    build_balancer,
    build_model,
    chosen_modalities,
    initial_model,
    open_dataset,
    own_learning_rates,
)
from equipoise.training.results import (
    best_on_test,
    dataset_report,
    summarise,
    test_report,
    write_json,
    write_predictions,
)
from equipoise.training.state import load_state
from equipoise.training.teachers import load_teachers

CONFIG, TEST, PREDICTIONS, WATCHED = "config.yaml", "test.json", "predictions.csv", "test_by_epoch.json"
VALID = "valid.json"
_FREE = {
    "threads",
    "train.workers",
    "train.checkpoint_every",
    "train.keep_epochs",
}  # settings that may differ when a run is resumed

Progress = Callable[[int, int, "Mapping[str, float | int | None] | None"], None]


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """A finished run, ready to predict.

    Attributes:
        config: what made it.
        dataset: the data it was trained on, with its text features.
        model: the chosen epoch's weights, in evaluation mode.
        modalities: those it reads.
    """

    config: RunConfig
    dataset: Dataset
    model: nn.Module
    modalities: tuple[str, ...]


@freed_memory_kept()
def run(
    config: RunConfig,
    out: str | Path,
    *,
    resume: bool = True,
    split: Literal["test", "valid"] = "test",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train, choose on validation data, read the test split once, and write the run directory.

    Args:
        config: what to run.
        out: the run directory. A run that was stopped goes on where its last checkpoint is; a finished one is returned.
        resume: False starts anew.
        split: ``"valid"`` stops before the test split, which is then never read and need not be there: for choosing
            settings. ``valid.json`` says what the chosen epoch reaches on validation data.
        progress: called with (steps done, steps in all, the epoch's row or None).

    Returns:
        The content of ``test.json``, or of ``valid.json``.

    Raises:
        ValueError: a config that does not fit the data or the model, or another config's run directory.
        FileNotFoundError: no such dataset or text encoder.
        OSError: something can't be written.
    """
    out = Path(out)
    written = out / (TEST if split == "test" else VALID)
    if split == "valid" and config.protocol != "honest":
        raise ValueError(f"`split = 'valid'` reads no test split. Found `protocol = {config.protocol!r}`, which does.")
    if config.threads not in (None, torch.get_num_threads()):  # once set, MKL is slow at small products in a loop
        torch.set_num_threads(config.threads)
    accelerator = make_accelerator(config.train.precision)
    if resume:
        _check_same(out, config)
        if written.is_file():
            return read_json(written)

    splits = ("train", "valid", "test") if split == "test" else ("train", "valid")
    dataset = open_dataset(config.data, config.text, device=accelerator.device, splits=splits)
    names = chosen_modalities(dataset, config.modalities, config.text)
    train, valid = dataset.split("train"), dataset.split("valid")
    teachers = load_teachers(config, names, load_run)  # before seeding: building them draws weights
    model = initial_model(config, dataset, names)
    balancer = build_balancer(config.balancer, model, names)

    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        if not resume:
            _clear(out)
        out.mkdir(parents=True, exist_ok=True)
        if is_foreign(config.model.name):
            keep_source(config.model.name, out)
        fresh = not (out / CONFIG).is_file()
        if fresh or load_config(out / CONFIG) != config:
            replace_file(out / CONFIG, dump_config(config).encode())
    accelerator.wait_for_everyone()

    settings = config.train.model_dump(exclude={"normalise", "keep_epochs"})
    select = config.train.select or ("accuracy" if dataset.manifest.task == "classification" else "mae")
    watch = _watch_test(out, dataset, names, config) if config.protocol == "paper" else None
    observers = [watch] if watch is not None else []
    observers += [epoch_keeper(out)] if config.train.keep_epochs else []
    try:
        result = fit(
            model,
            train=train,
            valid=valid,
            balancer=balancer,
            teachers=teachers,
            modalities=names,
            own_lr=own_learning_rates(config, model),
            seed=config.seed,
            run_dir=out,
            resume=resume,
            progress=progress,
            observer=lambda epoch, net: [each(epoch, net) for each in observers],
            **settings,
        )
    except Exception:
        if accelerator.is_main_process and fresh and not has_checkpoint(out / "checkpoint"):
            (out / CONFIG).unlink(missing_ok=True)  # nothing was trained: the next config is welcome here
        raise

    if accelerator.is_main_process:
        scored = dataset.split(split)
        found = evaluate(
            model,
            scored,
            modalities=names,
            loss=config.train.loss,
            autocast=accelerator.autocast,
            quiet=split == "valid",
        )
        report: dict[str, Any] = {
            "protocol": config.protocol,
            "seed": config.seed,
            "model": config.model.name,
            "balancer": [each.name for each in config.balancer],
            "select": select,
            "epoch": result.best_epoch,
            "epochs": result.epochs,
        }
        if split == "test":
            write_predictions(out / PREDICTIONS, scored, found.predictions)
            report |= test_report(found, scored)
        else:
            report |= {"split": split, "metrics": found.metrics, "modalities": found.modalities, "loss": found.loss}
        if watch is not None:
            by = ("accuracy" if dataset.manifest.task == "classification" else "mae") if select == "last" else select
            report["test_selected"] = best_on_test(read_json(out / WATCHED), by, found.metrics)
        if split == "test":  # what splits share says something of the test split
            report["dataset"] = dataset_report(dataset)
        report |= {
            "parameters": sum(p.numel() for p in model.parameters()),
            "seconds_per_epoch": result.seconds_per_epoch,
        }
        write_json(written, report)
    accelerator.wait_for_everyone()
    return read_json(written)


def run_seeds(
    config: RunConfig,
    out: str | Path,
    seeds: Sequence[int],
    *,
    resume: bool = True,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Run a config once for each seed, into ``out/seed-N``, and write their mean and spread to ``out/summary.json``.

    Raises:
        ValueError: no seed, or one twice; and as `run`.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"Parameter `seeds` should hold distinct seeds, at least one. Found {list(seeds)}.")
    out = Path(out)
    results = [
        run(config.model_copy(update={"seed": seed}), out / f"seed-{seed}", resume=resume, progress=progress)
        for seed in seeds
    ]
    if make_accelerator(config.train.precision).is_main_process:
        write_json(out / "summary.json", summarise(results))
    return results


def load_run(path: str | Path, data: str | None = None) -> TrainedRun:
    """Open a finished run directory.

    Args:
        path: the run directory.
        data: where the dataset is now; None for where it was in training.

    Raises:
        FileNotFoundError: no run there, or no dataset where it was.
        ValueError: a run that has not finished, or data that its model was not built for.
    """
    path = Path(path)
    if not (path / CONFIG).is_file():
        raise FileNotFoundError(f"{path} is no run directory: {CONFIG} not found. Make one with `equipoise train`.")
    config = load_config(path / CONFIG)
    found = load_checkpoint(path / "checkpoint")
    if found is None or not found.state["done"]:
        raise ValueError(f"The run in {path} has not finished. Resume it with the command that started it.")
    if data is None and not Path(config.data).exists():
        raise FileNotFoundError(
            f"The dataset of {path} is not at {config.data}, where it was. Give its place now: `--data DIR`."
        )
    dataset = open_dataset(data or config.data, config.text)
    names = chosen_modalities(dataset, config.modalities, config.text)
    model = build_model(config.model, config.text, dataset, names)
    try:
        load_state(model, found.tensors["best"])
    except (KeyError, RuntimeError):
        raise ValueError(
            f"{dataset.path} should have the modalities, widths and labels that the model of {path} was trained on. "
            "Found others."
        ) from None
    return TrainedRun(config, dataset, model.eval(), names)


def _watch_test(
    out: Path, dataset: Dataset, names: Sequence[str], config: RunConfig
) -> Callable[[int, nn.Module], None]:
    """An observer that scores the test split after each epoch; the loop calls it and never learns what it saw."""
    test = dataset.split("test")

    def watch(epoch: int, model: nn.Module) -> None:
        seen = read_json(out / WATCHED) if (out / WATCHED).is_file() else {}
        found = evaluate(model, test, modalities=names, loss=config.train.loss, quiet=True)
        # By epoch: one that runs again after a resume says the same again.
        seen[str(epoch)] = {"loss": found.loss, "metrics": found.metrics, "modalities": found.modalities}
        write_json(out / WATCHED, seen)

    return watch


def _check_same(out: Path, config: RunConfig) -> None:
    """Refuse to go on in the directory of another config."""
    if not (out / CONFIG).is_file():
        return
    try:
        found = load_config(out / CONFIG)
    except ValueError as error:
        raise ValueError(
            f"{out / CONFIG} is no config of a run ({error}) Restore it, choose another directory, or start anew "
            "without resuming (`--no-resume`)."
        ) from None
    ours, theirs = _flat(config.model_dump(mode="json")), _flat(found.model_dump(mode="json"))
    for key in sorted(ours.keys() | theirs.keys()):
        same = ours.get(key) == theirs.get(key) or (key == "data" and _same_place(config.data, found.data))
        if not same and key not in _FREE:
            moved = f" If the dataset was only moved, change `data` in {out / CONFIG}." if key == "data" else ""
            raise ValueError(
                f"{out} holds a run with `{key} = {theirs.get(key)!r}`. Found `{key} = {ours.get(key)!r}`. "
                f"Choose another directory, or start anew without resuming (`--no-resume`).{moved}"
            )


def _same_place(one: str, other: str) -> bool:
    return Path(one).resolve() == Path(other).resolve()


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _clear(out: Path) -> None:
    """Remove what an earlier run wrote, and nothing else."""
    for name in (CONFIG, TEST, VALID, PREDICTIONS, WATCHED, SOURCE, *TABLES):
        (out / name).unlink(missing_ok=True)
    for name in ("checkpoint", "epochs", "tensorboard", "robustness", "controls"):
        shutil.rmtree(out / name, ignore_errors=True)
