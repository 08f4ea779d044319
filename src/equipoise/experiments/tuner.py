"""All studies of a comparison over one store: killed anywhere they go on, and no trial is lost or made twice."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from equipoise.experiments.cell import Cell
from equipoise.experiments.pool import Asked
from equipoise.experiments.store import Store
from equipoise.experiments.study import Study, Trial
from equipoise.experiments.trial_database import TrialDatabase

DATABASE = "tuning.db"


class Tuner:
    """What has been tried, what comes next, and what was chosen.

    What a study tries next follows from its settings and from results alone, and results lie in the store, one a
    training. So nothing else has to be kept; that the trials stand in an Optuna database too is for whoever wants to
    look at them with Optuna's own tools, and for machines that share a database but no store. Where it has a trial's
    figure, that one counts: so all machines go on from the same.

    Args:
        studies: of one grid; their trials go to one database, which is made here.
        store: where trials' results are; None knows none.
        keep: whether there is a database.
        retry: whether trials that failed are made again.

    Raises:
        ValueError: no Optuna, or a database that can't be opened.
        OSError: the database no longer answers; so do `advance`, `ask` and `heard`.
    """

    def __init__(
        self, studies: Iterable[Study], store: Store | None, *, keep: bool = True, retry: bool = False
    ) -> None:
        self.studies = list(studies)
        self.store = store
        self.told: dict[str, list[Trial]] = {study.id: [] for study in self.studies}
        self._retry = retry
        self._retried: set[str] = set()
        self._values: dict[str, float | None] = {}  # of the database, by cells
        self._again: set[str] = set()  # cells whose failure there doesn't count
        self._ahead: set[str] = set()
        self._proposals: dict[str, tuple[int, list[Trial]]] = {}
        self._cells: dict[str, Cell] = {}
        self._slots: dict[str, list[tuple[Study, Trial]]] = {}
        self._database: TrialDatabase | None = None
        if keep and store is not None and self.studies:
            url = self.studies[0].tuning.storage or f"sqlite:///{(store.root / DATABASE).resolve()}"
            self._database = TrialDatabase(url, self.studies)
            for study in self.studies:
                self.told[study.id] = self._kept(study)
        self.advance()

    def advance(self) -> dict[str, Cell]:
        """Take in the results that have come, and say what to train now: ``{slot: cell}``; empty when all is tried."""
        found: dict[str, Cell] = {}
        self._ahead.clear()
        self._slots.clear()
        for study in self.studies:
            self._look(study)
            while ahead := self._proposed(study):
                cells = [self._cell(study, trial) for trial in ahead]
                for trial, cell in zip(ahead, cells, strict=True):
                    self._slots.setdefault(cell.id, []).append((study, replace(trial, cell=cell.id)))
                told = self._tell(study, ahead, cells)
                if told < len(ahead):
                    left = {_slot(study, trial.number): cell for trial, cell in zip(ahead, cells, strict=True)}
                    found |= {slot: cell for slot, cell in list(left.items())[told:] if not self._known(cell)}
                    self._ahead |= left.keys() - found.keys()
                    break
        return found

    def ask(self, cell: Cell) -> Asked:
        """Whether a trial may be trained here and now; from then on it is held, until it is `heard` of."""
        if self._database is None:
            return "ours"
        if not self._database.claim(cell.id):
            return "busy"
        for study, _ in self._slots.get(cell.id, ()):
            self._look(study)
        if cell.id in self._values:
            self._database.release(cell.id)
            return "elsewhere"
        return "ours"

    def heard(self, cell: Cell, what: str) -> None:
        """A trial has come to its end: now the other machines may know."""
        if self._database is None or what not in ("done", "failed", "elsewhere"):
            return
        for study, trial in self._slots.get(cell.id, ()):
            if self._stored(cell):
                self._keep(study, trial)
        self._database.release(cell.id)

    def close(self) -> None:
        """Let go of the database."""
        if self._database is not None:
            self._database.close()

    def cells(self) -> list[Cell]:
        """All trials and trainings of the comparison; stand-ins (`Study.slots`) for those not known yet."""
        trials = [cell for study in self.studies for cell in self._trials(study)]
        return trials + self.finals(stand_ins=True)

    def waiting(self) -> list[Cell]:
        """Those of `cells` that have no result."""
        trials = [cell for study in self.studies for cell in self._trials(study)[len(self.told[study.id]) :]]
        trials = [cell for cell in trials if cell.id not in self._ahead]
        return trials + [cell for cell in self.finals(stand_ins=True) if not self._known(cell)]

    def finals(self, *, stand_ins: bool = False) -> list[Cell]:
        """The comparison's own trainings, the first seed of all first; none of a study all of whose trials failed."""
        found: list[list[Cell]] = []
        for study in self.studies:
            best = study.best(self.told[study.id])
            if self._over(study):
                found.append([] if best is None else study.final_cells(best))
            elif stand_ins:
                found.append(study.slots[study.tuning.trials :])
        return [cell for i in range(max(map(len, found), default=0)) for cells in found for cell in cells[i : i + 1]]

    def barren(self) -> list[Study]:
        """The studies all of whose trials failed."""
        return [each for each in self.studies if self._over(each) and each.best(self.told[each.id]) is None]

    def errors(self) -> dict[str, str]:
        """``{"dataset, model, method": why}`` of those that have no setting that could be trained."""
        found: dict[str, str] = {}
        for study in self.barren():
            told = self.told[study.id]
            failed = self.store is not None and self.store.failed(told[0].cell)
            reason = self.store.read(told[0].cell)["error"] if failed and self.store is not None else "see its run"
            found[study.cell.kind] = f"none of its {len(told)} trials has a figure; the first: {reason}"
        return found

    def record(self) -> list[dict[str, Any]]:
        """Every trial of every study as plain values."""
        found: list[dict[str, Any]] = []
        for study in self.studies:
            names = {"dataset": study.cell.dataset, "model": study.cell.model, "method": study.cell.method}
            best = study.best(self.told[study.id]) if self._over(study) else None
            for trial in self.told[study.id]:
                values = {"trial": trial.number, "settings": dict(trial.settings), "seed": trial.seed}
                chosen = {"metric": study.metric, "value": trial.value, "chosen": trial.settings == best}
                found.append({**names, **values, **chosen, "cell": trial.cell})
        return found

    def _over(self, study: Study) -> bool:
        return len(self.told[study.id]) >= study.tuning.trials

    def _trials(self, study: Study) -> list[Cell]:
        told = [self._cell(study, trial) for trial in self.told[study.id]]
        return told + study.slots[len(told) : study.tuning.trials]

    def _proposed(self, study: Study) -> list[Trial]:
        """`Study.ahead`, worked out once for each state of the study."""
        count = len(self.told[study.id])
        if self._proposals.get(study.id, (-1,))[0] != count:
            self._proposals[study.id] = count, study.ahead(self.told[study.id])
        return self._proposals[study.id][1]

    def _cell(self, study: Study, trial: Trial) -> Cell:
        name = _slot(study, trial.number)
        if name not in self._cells:
            self._cells[name] = study.trial_cell(trial)
        return self._cells[name]

    def _stored(self, cell: Cell) -> bool:
        return self.store is not None and (self.store.done(cell.id) or self.store.failed(cell.id))

    def _known(self, cell: Cell) -> bool:
        return cell.id in self._values or self._stored(cell)

    def _tell(self, study: Study, ahead: Sequence[Trial], cells: Sequence[Cell]) -> int:
        """Take in the results of the first of these, as far as there are any."""
        if self.store is None:
            return 0
        for cell in cells if self._retry else ():
            if self.store.failed(cell.id) and cell.id not in self._retried:
                self.store.forget(cell.id)
            self._retried.add(cell.id)
        for trial, cell in zip(ahead, cells, strict=True):
            if self._database is not None and cell.id not in self._values and self._stored(cell):
                self._keep(study, replace(trial, cell=cell.id))
        for count, (trial, cell) in enumerate(zip(ahead, cells, strict=True)):
            if not self._known(cell):
                return count
            value = self._values[cell.id] if cell.id in self._values else self._value(study, cell.id)
            self.told[study.id].append(replace(trial, value=value, cell=cell.id))
        return len(ahead)

    def _value(self, study: Study, id: str) -> float | None:
        """Of a trial whose result is in the store."""
        result = (self.store.read(id) if self.store is not None else {}).get("result") or {"metrics": {}}
        value: float | None = result["metrics"].get(study.metric)
        return value

    def _keep(self, study: Study, trial: Trial) -> None:
        """Put what is in the store into the database, unless another machine was quicker."""
        if self._database is not None:
            self._database.add(study, replace(trial, value=self._value(study, trial.cell)))
            self._again.discard(trial.cell)
            self._look(study)

    def _look(self, study: Study) -> list[Trial]:
        """Learn what the database knows; of two trials of one cell the one with a figure."""
        rows = [] if self._database is None else self._database.read(study)
        for row in rows:
            if row.value is not None or (row.cell not in self._again and self._values.get(row.cell) is None):
                self._values[row.cell] = row.value
        return rows

    def _kept(self, study: Study) -> list[Trial]:
        """What had been tried, without a gap; nothing where failures were tried again, for then it may be another."""
        rows = [] if self._database is None else self._database.read(study)
        failed = {row.cell for row in rows if row.value is None}
        if self._retry:
            self._again |= failed - {row.cell for row in rows if row.value is not None}
        found = {row.number: row for row in rows}
        if (self._retry and failed) or len(found) < len(rows):
            return []
        told = itertools.takewhile(found.__contains__, range(study.tuning.trials))
        return [found[number] for number in told]


def _slot(study: Study, number: int) -> str:
    return f"{study.id}-trial-{number}"
