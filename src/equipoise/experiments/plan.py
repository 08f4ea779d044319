"""From a grid to its cells, each checked against the data before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from equipoise.balancers import BALANCERS
from equipoise.data import Dataset, load
from equipoise.diagnostics.controls import control_configs
from equipoise.experiments.cell import Cell, data_checksum, make_cell
from equipoise.experiments.grid import Grid
from equipoise.experiments.overrides import lay
from equipoise.experiments.rows import Role
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
    first: list[Cell] = []
    for name in grid.datasets:
        first += _of_dataset(grid, name)
    return [_seeded(cell, seed) for seed in grid.seeds for cell in first]


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


def _of_dataset(grid: Grid, dataset: str) -> Iterator[Cell]:
    under = lay(grid.base, grid.datasets[dataset])
    under.setdefault("threads", 1)  # processes that share the cores, and figures that do not depend on how many
    data = load(under["data"])
    checksum = data_checksum(under["data"])
    for model, of_model in grid.models.items():
        cells: dict[str, Cell] = {}
        for method, of_method in grid.methods.items():
            where = f"{dataset}, {model}, {method}"
            try:
                config = make_config({**lay(lay(under, of_model), of_method), "seed": grid.seeds[0]})
                _check(config, data)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
            cell = make_cell(config, dataset=dataset, model=model, method=method, role=_role(config), checksum=checksum)
            if cell.id in cells:
                other = cells[cell.id].method
                raise ValueError(f"{where}: the same training as the method `{other}`. Leave one of them out.")
            cells[cell.id] = cell
        for cell in list(cells.values()):
            _add_controls(cells, cell, read_modalities(cell.config, data), train=grid.controls)
        yield from cells.values()


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


def _role(config: RunConfig) -> Role:
    if config.balancer:
        return "method"
    return "multi_loss" if config.train.unimodal_weight else "plain"


def _add_controls(cells: dict[str, Cell], cell: Cell, modalities: list[str], *, train: bool) -> None:
    """Put a cell's controls among the cells, unless they are there, and their names into its ``against``."""
    taken = {each.method for each in cells.values()}
    found = {"unbalanced": cell.method} if cell.role == "plain" else {}
    for folder, (kind, values) in control_configs(cell.config.model_dump(mode="json"), modalities).items():
        name = {"unbalanced": "plain", "alone": f"{folder.removeprefix('alone-')} alone"}.get(kind, kind)
        config = make_config(values)
        control = make_cell(
            config,
            dataset=cell.dataset,
            model=cell.model,
            method=f"{name} ({cell.method})" if name in taken else name,
            role="alone" if kind == "alone" else _role(config),
            checksum=cell.checksum,
            against=(found["unbalanced"],) if kind == "multi-loss" and "unbalanced" in found else (),
        )
        if train:
            cells.setdefault(control.id, control)
        if kind != "alone" and control.id in cells:
            found[kind] = cells[control.id].method
    cells[cell.id] = replace(cell, against=tuple(name for name in found.values() if name != cell.method))


def _seeded(cell: Cell, seed: int) -> Cell:
    return make_cell(
        cell.config.model_copy(update={"seed": seed}),
        against=cell.against,
        dataset=cell.dataset,
        model=cell.model,
        method=cell.method,
        role=cell.role,
        checksum=cell.checksum,
    )
