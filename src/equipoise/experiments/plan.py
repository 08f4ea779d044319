"""From a grid to its cells, each checked against the data before anything runs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from equipoise.balancers import BALANCERS
from equipoise.data import Dataset, load
from equipoise.diagnostics.controls import control_configs
from equipoise.experiments.cell import Cell, data_checksum, make_cell
from equipoise.experiments.grid import Grid
from equipoise.experiments.overrides import lay
from equipoise.experiments.rows import Role
from equipoise.experiments.search import WEIGHT, Search, check_search, control_search, default_search
from equipoise.experiments.study import Study, seeded
from equipoise.metrics import evaluate_metrics
from equipoise.training.arguments import unknown
from equipoise.training.config import RunConfig, make_config


def plan(grid: Grid) -> list[Cell]:
    """Every cell of a grid, the first seed of all of them first.

    Controls are those that `diagnostics.controls` trains beside a run: each modality alone, the plain model, and the
    plain model with every modality's own loss. One that several methods share stands there once; one of a method that
    trains otherwise (another optimizer, say) bears that method's name. Each process gets one thread where the grid
    says nothing of ``threads``.

    Raises:
        FileNotFoundError: no such dataset.
        ValueError: settings that no run takes or that contradict each other: one line that names the entries.
    """
    first = [cell for name in grid.datasets for cell, _ in _of_dataset(grid, name)]
    return [seeded(cell, seed) for seed in grid.seeds for cell in first]


def plan_studies(grid: Grid) -> list[Study]:
    """One study for each method and control of a grid with ``tuning``, on each dataset and model.

    Raises:
        FileNotFoundError: no such dataset.
        ValueError: as `plan`, and a searched setting or value that a run doesn't take.
    """
    if grid.tuning is None:
        raise ValueError("Grid key `tuning` should say how many trials. Found none.")
    found: list[Study] = []
    for name in grid.datasets:
        for cell, search in _of_dataset(grid, name):
            metric = _metric(cell, load(cell.config.data), grid.tuning.metric)
            found.append(Study(cell, search, grid.tuning, grid.seeds, metric))
    return found


def read_modalities(config: RunConfig, dataset: Dataset) -> list[str]:
    """The modalities that a run reads, without opening its text encoder.

    Raises:
        ValueError: one that the dataset lacks.
    """
    there = list(dataset.modalities)
    if config.text.encoder is not None and "text" not in there:
        there.append("text")
    for name in config.modalities or []:
        if name not in there:
            raise ValueError(f"Config key `modalities`: {unknown('modality', name, there)}")
    return there if config.modalities is None else [name for name in there if name in config.modalities]


_Entries = dict[tuple[str, str], tuple[Cell, Search]]
"""By id and what is searched."""


def _of_dataset(grid: Grid, dataset: str) -> Iterator[tuple[Cell, Search]]:
    under = lay(grid.base, grid.datasets[dataset])
    under.setdefault("threads", 1)  # processes that share the cores, and figures that do not depend on how many
    data = load(under["data"])
    checksum = data_checksum(under["data"])
    for model, of_model in grid.models.items():
        found: _Entries = {}
        for method, of_method in grid.methods.items():
            where = f"{dataset}, {model}, {method}"
            try:
                values = lay(lay(under, of_model), of_method)
                search: Search = {key: space for key, space in values.pop("search", {}).items() if space is not None}
                config = make_config({**values, "seed": grid.seeds[0]})
                _check(config, data)
                if grid.tuning is not None:
                    search = _own(search, config)
                    check_search(config, search)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
            role = _role(config, search)
            cell = make_cell(config, dataset=dataset, model=model, method=method, role=role, checksum=checksum)
            if (other := found.get(_key(cell, search))) is not None:
                same = other[0].method
                raise ValueError(f"{where}: the same training as the method `{same}`. Leave one of them out.")
            found[_key(cell, search)] = cell, search
        for cell, own in list(found.values()):
            _add_controls(found, cell, own, read_modalities(cell.config, data), grid)
        yield from found.values()


def _own(search: Search, config: RunConfig) -> Search:
    """What is searched for a method: a plain one has no balancer, and what names nothing searches the learning rate."""
    found = {key: space for key, space in search.items() if config.balancer or key.partition(".")[0] != "balancer"}
    return found or default_search(config)


def _key(cell: Cell, search: Search) -> tuple[str, str]:
    return cell.id, repr(sorted(search.items()))


def _metric(cell: Cell, data: Dataset, wanted: str | None) -> str:
    """The validation metric that chooses among settings: the one named, else the one that chooses among epochs."""
    select, task = cell.config.train.select, data.manifest.task
    name = wanted or (select if select not in (None, "last") else None)
    name = name or ("accuracy" if task == "classification" else "mae")
    outputs = data.manifest.labels.outputs
    shape = (2, outputs) if outputs > 1 else (2,)
    target = np.zeros(2, np.int64) if task == "classification" else np.zeros(shape, np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what two samples leave undefined
        known = evaluate_metrics(task, np.zeros(shape, np.float32), target, scale=data.manifest.labels.scale)
    if name not in known:
        raise ValueError(f"{cell.kind}: Grid key `tuning.metric`: {unknown('metric', name, known)}")
    return name


def _check(config: RunConfig, data: Dataset) -> None:
    names = read_modalities(config, data)
    if config.balancer and len(names) < 2:
        raise ValueError(f"A balancer needs at least two modalities. Found {', '.join(names)} alone.")
    for each in config.balancer:
        if "teacher" in BALANCERS[each.name].needs and not each.teachers:
            raise ValueError(
                f"{each.name} learns from a model of each modality. Train them first, and give their run directories: "
                "`balancer.teachers: {MODALITY: RUN_DIR, ...}`."
            )


def _role(config: RunConfig, search: Search) -> Role:
    if config.balancer:
        return "method"
    return "multi_loss" if config.train.unimodal_weight or WEIGHT in search else "plain"


def _add_controls(found: _Entries, cell: Cell, search: Search, modalities: list[str], grid: Grid) -> None:
    """Put a cell's controls among the cells, unless they are there, and their names into its ``against``."""
    taken = {each.method for each, _ in found.values()}
    there = {each.id: each.method for each, _ in reversed(found.values())}
    names = {"unbalanced": cell.method} if cell.role == "plain" else {}
    for folder, (kind, values) in control_configs(cell.config.model_dump(mode="json"), modalities).items():
        name = {"unbalanced": "plain", "alone": f"{folder.removeprefix('alone-')} alone"}.get(kind, kind)
        config = make_config(values)
        weight = bool(config.train.unimodal_weight)
        own = {} if grid.tuning is None else control_search(search, config, weight=weight)
        control = make_cell(
            config,
            dataset=cell.dataset,
            model=cell.model,
            method=f"{name} ({cell.method})" if name in taken else name,
            role="alone" if kind == "alone" else _role(config, own),
            checksum=cell.checksum,
            against=(names["unbalanced"],) if kind == "multi-loss" and "unbalanced" in names else (),
        )
        if grid.controls and control.id not in there:  # one that is there is searched as it is, the grid's own first
            found[_key(control, own)] = control, own
            there[control.id] = control.method
        if kind != "alone" and control.id in there:
            names[kind] = there[control.id]
    against = tuple(name for name in names.values() if name != cell.method)
    found[_key(cell, search)] = replace(cell, against=against), search
