"""One method's search: what is tried next follows from what has been tried, and from nothing else."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import Any

from equipoise.experiments.cell import Cell, make_cell
from equipoise.experiments.search import Range, Search, applied, combinations
from equipoise.experiments.tuning import Tuning
from equipoise.metrics import better
from equipoise.training.config import RunConfig

STARTUP = 10
"""Trials drawn at random before any is drawn by what the others gave."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A setting that was or will be tried.

    Attributes:
        number: from 0.
        settings: by dotted names.
        seed: of its training.
        value: of the metric on the validation split; None where it failed or has not ended.
        cell: the id of its training.
    """

    number: int
    settings: Mapping[str, Any]
    seed: int
    value: float | None = None
    cell: str = ""


@dataclass(frozen=True)
class Study:
    """The search of one method or control on one dataset with one model.

    Attributes:
        cell: its training as the config stands, on the comparison's first seed.
        search: what is searched.
        tuning: how.
        seeds: of the comparison; trials train on others.
        metric: of the validation split, that chooses.
    """

    cell: Cell
    search: Search
    tuning: Tuning
    seeds: tuple[int, ...]
    metric: str

    @cached_property
    def id(self) -> str:
        """A digest of all that decides what is tried, and what comes of it; the number of trials is no part of it."""
        spaces = {key: repr(space) for key, space in self.search.items()}
        how = [self.sampler, self.tuning.seed, self.tuning.epochs, self.metric, list(self.seeds)]
        text = json.dumps([self.cell.id, spaces, how], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    @cached_property
    def sampler(self) -> str:
        """``"grid"`` wherever there are only choices and trials enough for all of them."""
        every = combinations(self.search)
        if self.tuning.sampler == "grid" and every is None:
            raise ValueError(
                f"{self.cell.kind}: Grid key `tuning.sampler = 'grid'` needs lists of choices. Found a range: give "
                "choices, or take another sampler."
            )
        return "grid" if every is not None and len(every) <= self.tuning.trials else self.tuning.sampler

    def ahead(self, told: Sequence[Trial]) -> list[Trial]:
        """What may be tried now: all that doesn't wait for a result. Empty when every trial is told."""
        count, trials = len(told), self.tuning.trials
        if self.sampler == "tpe":
            trials = min(trials, max(STARTUP, count + 1))
        found = list(told)
        for number in range(count, trials):
            settings = self._settings(number, told)
            free = (seed for seed in itertools.count(self.tuning.seed) if seed not in self.seeds)
            again = sum(each.settings == settings for each in found)  # a setting that comes again gets another seed
            seed = next(itertools.islice(free, again, None))
            found.append(Trial(number, settings, seed))
        return found[count:]

    def trial_cell(self, trial: Trial) -> Cell:
        """The training of a trial, which never reads the test split."""
        config = applied(self.cell.config, trial.settings)
        epochs = self.tuning.epochs or config.train.epochs
        train = config.train.model_copy(update={"epochs": epochs})
        config = config.model_copy(update={"seed": trial.seed, "train": train, "protocol": "honest"})
        return self._cell(config, split="valid", against=())

    def best(self, told: Sequence[Trial]) -> Mapping[str, Any] | None:
        """The setting that is best on validation data, over its seeds where it has several; None where all failed."""
        sign = 1.0 if better(self.metric) == "max" else -1.0
        groups: dict[str, list[Trial]] = {}
        for trial in told[: self.tuning.trials]:
            groups.setdefault(json.dumps(trial.settings, sort_keys=True), []).append(trial)
        whole = [group for group in groups.values() if all(trial.value is not None for trial in group)]
        ranked = [(fmean(sign * (trial.value or 0.0) for trial in group), group[0].settings) for group in whole]
        return max(ranked, key=lambda each: each[0])[1] if ranked else None

    def final_cells(self, settings: Mapping[str, Any] | None) -> list[Cell]:
        """The comparison's own trainings, with the setting chosen; None keeps the config as it stands."""
        config = applied(self.cell.config, settings or {})
        return [
            self._cell(config.model_copy(update={"seed": seed}), against=self.cell.against, trials=self.tuning.trials)
            for seed in self.seeds
        ]

    @cached_property
    def slots(self) -> list[Cell]:
        """Stand-ins for all of its trainings, before their settings are known, to be counted and timed."""
        trial = self.trial_cell(Trial(0, {}, 0))
        trials = [replace(trial, id=f"{self.id}-trial-{n}") for n in range(self.tuning.trials)]
        finals = self.final_cells(None)
        return trials + [replace(cell, id=f"{self.id}-seed-{cell.seed}") for cell in finals]

    def _cell(self, config: RunConfig, **more: Any) -> Cell:
        of = self.cell
        return make_cell(
            config, dataset=of.dataset, model=of.model, method=of.method, role=of.role, checksum=of.checksum, **more
        )

    def _settings(self, number: int, told: Sequence[Trial]) -> dict[str, Any]:
        every = combinations(self.search)
        if self.sampler == "grid" and every is not None:
            return every[number % len(every)]
        optuna = quiet_optuna()
        late = self.sampler == "tpe" and number >= STARTUP
        seed = int(hashlib.sha256(f"{self.tuning.seed} {number}".encode()).hexdigest()[:8], 16)
        sampler = (
            optuna.samplers.TPESampler(n_startup_trials=STARTUP, seed=seed)
            if late
            else optuna.samplers.RandomSampler(seed=seed)
        )
        study = optuna.create_study(
            direction="maximize" if better(self.metric) == "max" else "minimize", sampler=sampler
        )
        spaces = distributions(self.search)
        study.add_trials([frozen(trial, spaces) for trial in told if late])
        if number == 0:
            study.enqueue_trial(self._standing())
        return dict(study.ask(spaces).params)

    def _standing(self) -> dict[str, Any]:
        """The searched settings as the config has them, where the search holds them: they are tried first."""
        values = self.cell.config.model_dump(mode="json")
        found: dict[str, Any] = {}
        for key, space in self.search.items():
            node: Any = values
            for part in key.split("."):
                if isinstance(node, list) and not part.isdigit():
                    node = node[0] if len(node) == 1 else None
                node = node[int(part)] if isinstance(node, list) else node.get(part) if isinstance(node, dict) else None
            number = isinstance(node, int | float) and not isinstance(node, bool)
            inside = number and space.low <= node <= space.high if isinstance(space, Range) else node in space
            if inside:
                found[key] = node
        return found


def quiet_optuna() -> Any:
    """Optuna, without a line for every study.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import optuna
    except ModuleNotFoundError:
        raise ValueError('Grid key `tuning` needs Optuna: pip install "equipoise[tune]"') from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def distributions(search: Search) -> dict[str, Any]:
    """The spaces as Optuna knows them."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, Any] = {}
    for key, space in search.items():
        if not isinstance(space, Range):
            found[key] = CategoricalDistribution(space)
        elif isinstance(space.low, int) and isinstance(space.high, int):
            found[key] = IntDistribution(space.low, space.high, log=space.log)
        else:
            found[key] = FloatDistribution(space.low, space.high, log=space.log)
    return found


def frozen(trial: Trial, spaces: Mapping[str, Any]) -> Any:
    """An ended trial as Optuna keeps it."""
    from optuna.trial import TrialState, create_trial

    failed = trial.value is None or not math.isfinite(trial.value)
    return create_trial(
        state=TrialState.FAIL if failed else TrialState.COMPLETE,
        value=None if failed else trial.value,
        params=dict(trial.settings),
        distributions=dict(spaces),
        user_attrs={"number": trial.number, "seed": trial.seed, "cell": trial.cell},
    )


def seeded(cell: Cell, seed: int) -> Cell:
    """The same training on another seed."""
    return make_cell(
        cell.config.model_copy(update={"seed": seed}),
        against=cell.against,
        dataset=cell.dataset,
        model=cell.model,
        method=cell.method,
        role=cell.role,
        checksum=cell.checksum,
        split=cell.split,
        trials=cell.trials,
    )
