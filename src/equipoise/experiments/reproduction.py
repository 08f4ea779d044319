"""The papers' tables and figures as declarations: which runs, from which preset, and what was published."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from equipoise.experiments.corpora import CORPORA
from equipoise.experiments.dotted import put, remove
from equipoise.training.config import RunConfig, make_config
from equipoise.training.presets import PRESETS, preset_path

Picture = Literal["norms", "own", "tsne"]


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Place(_Part):
    """A dataset of a table.

    Attributes:
        corpus: a name of `equipoise.experiments.corpora.CORPORA`.
        preset: what its rows start from.
        set: dotted overrides of every row.
        columns: ``{title: metric}``, where they are not the table's.
        compared_with: the dataset of this table whose published figures stand beside, where this one is a counterpart.
    """

    corpus: str
    preset: str
    set: dict[str, Any] = {}
    columns: dict[str, str] | None = None
    compared_with: str | None = None


class Line(_Part):
    """A row of a table.

    Attributes:
        name: as the paper prints it.
        group: rows that belong together, such as one kind of fusion.
        preset: another one than the dataset's.
        set: dotted overrides, ``{"balancer.0.alpha": 0.05, "model": "TFN"}``; numbers count in lists.
        drop: what to take out of lists, ``["balancer.0"]``.
        only: datasets that it stands for; None for all.
        concept: the modality whose mono-modal concept this row trains (AGM, section 3.2.1).
        teachers: ``{modality: name of the row that trains it}``, for a balancer that learns from finished runs.
        published: ``{dataset: figures in the order of the columns, as printed}``; null where none is printed.
        absent: why nothing is run: the method is not here.
        note: what differs from the paper's row.
    """

    name: str
    group: str = ""
    preset: str | None = None
    set: dict[str, Any] = {}
    drop: list[str] = []
    only: list[str] | None = None
    concept: str | None = None
    teachers: dict[str, str] = {}
    published: dict[str, list[float | None]] = {}
    absent: str | None = None
    note: str | None = None

    @property
    def label(self) -> str:
        """Name and group."""
        return f"{self.name} ({self.group})" if self.group else self.name


class Reproduction(_Part):
    """A table or figure of a paper.

    Attributes:
        name: such as ``agm.table1``.
        title: one line.
        paper: whose it is.
        item: which of the paper's tables or figures; "not in the paper" for a counterpart.
        columns: ``{title: metric}``: a metric of the test split, ``own/MODALITY/METRIC``, ``strength/MODALITY`` (AGM,
            Eq. 13), ``class/CLASS/f1``, ``parameters`` or ``seconds`` (of training, all epochs).
        datasets: in the order of the paper.
        rows: in the order of the paper.
        seeds: of every run; None for the seed of the preset.
        picture: what to draw beside the table.
        notes: what a reader has to know.
    """

    name: str
    title: str
    paper: str
    item: str
    columns: dict[str, str]
    datasets: Annotated[dict[str, Place], Field(min_length=1)]
    rows: Annotated[list[Line], Field(min_length=1)]
    seeds: list[int] | None = [0, 1, 2, 3, 4]
    picture: Picture | None = None
    notes: Annotated[list[str], BeforeValidator(_listed)] = []

    @model_validator(mode="after")
    def _consistent(self) -> Reproduction:
        labels = [row.label for row in self.rows]
        if len(set(labels)) < len(labels):
            twice = sorted({label for label in labels if labels.count(label) > 1})
            raise ValueError(f"{self.name}: rows should have names of their own. Found twice: {', '.join(twice)}.")
        for name, place in self.datasets.items():
            _known(place.corpus, CORPORA, f"{self.name}: corpus of `{name}`")
            _known(place.preset, PRESETS, f"{self.name}: preset of `{name}`")
            if place.compared_with is not None:
                _known(place.compared_with, self.datasets, f"{self.name}: `compared_with` of `{name}`")
        for row in self.rows:
            for dataset, figures in row.published.items():
                _known(dataset, self.datasets, f"{self.name}: published figures of `{row.label}`")
                if len(figures) != len(self.columns_of(dataset)):
                    raise ValueError(
                        f"{self.name}: row `{row.label}` should hold {len(self.columns_of(dataset))} figures for "
                        f"{dataset}. Found {len(figures)}."
                    )
            for dataset in row.only or []:
                _known(dataset, self.datasets, f"{self.name}: datasets of `{row.label}`")
            for teacher in row.teachers.values():
                _known(teacher, labels, f"{self.name}: teachers of `{row.label}`")
        return self

    def columns_of(self, dataset: str) -> dict[str, str]:
        """``{title: metric}`` of one dataset."""
        return self.datasets[dataset].columns or self.columns

    def rows_of(self, dataset: str) -> list[Line]:
        """The rows that stand for a dataset."""
        return [row for row in self.rows if row.only is None or dataset in row.only]

    def published(self, row: Line, dataset: str) -> dict[str, float | None]:
        """``{column: the paper's figure}`` beside a row, as printed; None where the paper has none."""
        source = self.datasets[dataset].compared_with or dataset
        figures = dict(zip(self.columns_of(source), row.published.get(source, []), strict=False))
        return {title: figures.get(title) for title in self.columns_of(dataset)}

    def config(self, row: Line, dataset: str, *, data: str, seed: int | None = None) -> RunConfig:
        """The run of a row, under the protocol that reports both figures, the honest one and the best on test.

        Raises:
            ValueError: the row is absent, or its overrides don't fit: one line that names the key.
        """
        if row.absent is not None:
            raise ValueError(f"{self.name}: `{row.label}` can't be run: {row.absent}.")
        place = self.datasets[dataset]
        values = copy.deepcopy(_preset(row.preset or place.preset))
        for key, value in [*place.set.items(), *row.set.items()]:
            put(values, key, copy.deepcopy(value))
        for key in row.drop:
            remove(values, key)
        values |= {"data": data, "protocol": "paper"}
        if seed is not None:
            values["seed"] = seed
        try:
            return make_config(values)
        except ValueError as error:
            raise ValueError(f"{self.name}, row `{row.label}`: {error}") from None

    def seeds_of(self, dataset: str) -> list[int]:
        """The seeds that a dataset is run with."""
        if self.seeds is not None:
            return self.seeds
        return [int(_preset(self.datasets[dataset].preset).get("seed", 0))]


def names() -> list[str]:
    """All there are, tables before figures, with numbers in order."""
    folder = Path(str(files("equipoise"))) / "experiments" / "reproductions"
    found = [path.stem for path in folder.glob("*.yaml")]
    return sorted(found, key=lambda name: (name.split(".")[0], "fig" in name, len(name), name))


def load(name: str) -> Reproduction:
    """The reproduction of that name.

    Raises:
        ValueError: there is none (the message offers the nearest), or its file is at fault.
    """
    _known(name, names(), "reproduction")
    path = Path(str(files("equipoise"))) / "experiments" / "reproductions" / f"{name}.yaml"
    try:
        return Reproduction.model_validate({"name": name, **yaml.safe_load(path.read_text(encoding="utf-8"))})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path.name}: {f'`{where}`: ' if where else ''}{first['msg']}") from None


@cache
def _preset(name: str) -> dict[str, Any]:
    values = yaml.safe_load(preset_path(name).read_text(encoding="utf-8"))
    return dict(values)


def _known(name: str, valid: Mapping[str, Any] | Sequence[str], what: str) -> None:
    if name not in valid:
        near = difflib.get_close_matches(name.lower(), list(valid), n=1, cutoff=0.5)
        meant = f" Did you mean `{near[0]}`?" if near else ""
        raise ValueError(f"Unknown {what}: `{name}`.{meant} Valid: {', '.join(valid)}.")
