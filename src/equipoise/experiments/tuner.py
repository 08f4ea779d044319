"""All studies of a comparison over one store: killed anywhere they go on, and no trial is lost or made twice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from equipoise.experiments.cell import Cell
from equipoise.experiments.store import Store
from equipoise.experiments.study import Study, Trial, distributions, frozen, quiet_optuna
from equipoise.metrics import better

DATABASE = "tuning.db"


class Tuner:
    """What has been tried, what comes next, and what was chosen.

    What a study tries next follows from its settings and from results alone, and results lie in the store, one a
    training. So nothing else has to be kept; that the trials stand in an Optuna database too is for whoever wants to
    look at them with Optuna's own tools, and for machines that share a database but no store.

    Args:
        studies: of one grid; their trials go to one database, which is made here.
        store: where trials' results are; None knows none.
        keep: whether there is a database.
        retry: whether trials that failed are made again.

    Raises:
        ValueError: no Optuna, or a database that can't be opened.
    """

    def __init__(
        self, studies: Iterable[Study], store: Store | None, *, keep: bool = True, retry: bool = False
    ) -> None:
        self.studies = list(studies)
        self.store = store
        self._retry = retry
        self._retried: set[str] = set()
        self._kept: dict[str, Any] = {}
        self.told: dict[str, list[Trial]] = {study.id: [] for study in self.studies}
        if keep and store is not None and self.studies:
            self._open(store)
        self._ahead: set[str] = set()
        self._proposals: dict[str, tuple[int, list[Trial]]] = {}
        self._cells: dict[str, Cell] = {}
        self.advance()

    def advance(self) -> dict[str, Cell]:
        """Take in the results that have come, and say what to train now: ``{slot: cell}``; empty when all is tried."""
        found: dict[str, Cell] = {}
        self._ahead.clear()
        for study in self.studies:
            while ahead := self._proposed(study):
                cells = [self._cell(study, trial) for trial in ahead]
                told = self._tell(study, ahead, cells)
                if told < len(ahead):
                    left = {_slot(study, trial.number): cell for trial, cell in zip(ahead, cells, strict=True)}
                    found |= {slot: cell for slot, cell in list(left.items())[told:] if not self._known(cell)}
                    self._ahead |= left.keys() - found.keys()
                    break
        return found

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

    def _known(self, cell: Cell) -> bool:
        return self.store is not None and (self.store.done(cell.id) or self.store.failed(cell.id))

    def _tell(self, study: Study, ahead: Sequence[Trial], cells: Sequence[Cell]) -> int:
        """Take in the results of the first of these, as far as there are any."""
        if self.store is None:
            return 0
        for cell in cells if self._retry else ():
            if self.store.failed(cell.id) and cell.id not in self._retried:
                self.store.forget(cell.id)
            self._retried.add(cell.id)
        for count, (trial, cell) in enumerate(zip(ahead, cells, strict=True)):
            if not self._known(cell):
                return count
            result = self.store.read(cell.id).get("result") or {"metrics": {}}
            told = replace(trial, value=result["metrics"].get(study.metric), cell=cell.id)
            self.told[study.id].append(told)
            if study.id in self._kept:
                self._kept[study.id].add_trial(frozen(told, distributions(study.search)))
        return len(ahead)

    def _open(self, store: Store) -> None:
        """Make or find every study in the database, before anything runs, and take in the trials that stand there."""
        optuna = quiet_optuna()
        url = self.studies[0].tuning.storage or f"sqlite:///{(store.root / DATABASE).resolve()}"
        try:
            database = optuna.storages.RDBStorage(url)
            there = set(optuna.get_all_study_names(database))
            for study in self.studies:
                name = f"{study.cell.kind} [{study.id}]"
                if name in there and self._retry and None in [each.value for each in self._read(name, database)]:
                    optuna.delete_study(study_name=name, storage=database)
                self._kept[study.id] = optuna.create_study(
                    study_name=name,
                    storage=database,
                    direction="maximize" if better(study.metric) == "max" else "minimize",
                    load_if_exists=True,
                )
                self.told[study.id] = self._read(name, database)[: study.tuning.trials]
        except ImportError as error:
            raise ValueError(f"{url} needs a driver: {error}. Install it, or leave `tuning.storage` out.") from None
        except Exception as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"The database of trials, {url}, can't be opened ({reason}). A SQLite file can be deleted: the results "
                "of trials are in the store."
            ) from None

    @staticmethod
    def _read(name: str, database: Any) -> list[Trial]:
        """The trials that have ended, without a gap; of two with one number, which two machines added, the first."""
        optuna = quiet_optuna()
        found: dict[int, Trial] = {}
        for each in optuna.load_study(study_name=name, storage=database).trials:
            kept = each.user_attrs
            value = each.value if each.state == optuna.trial.TrialState.COMPLETE else None
            trial = Trial(kept["number"], dict(each.params), kept["seed"], value, kept["cell"])
            found.setdefault(trial.number, trial)
        return [found[number] for number in range(len(found)) if number in found]


def _slot(study: Study, number: int) -> str:
    return f"{study.id}-trial-{number}"
