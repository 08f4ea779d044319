"""The database of trials: what was tried, for Optuna's own tools and for machines that share no store.

In PostgreSQL a trial that one machine runs is left alone by the others. The server lets go of it when that machine's
connection ends, however it ends, as the file system does with a lock.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from equipoise.experiments.study import Study, Trial, distributions, frozen, quiet_optuna
from equipoise.experiments.tuning import shown
from equipoise.metrics import better

POSTGRES = "postgresql"
DRIVER = "postgresql+psycopg"
CONNECT_SECONDS = 10
KEY = 2**60
"""Above the keys of cells: of the lock under which something is written."""
SESSION = ("SET tcp_keepalives_idle = 60", "SET tcp_keepalives_interval = 10", "SET tcp_keepalives_count = 6")
"""A machine that lost its power is noticed after two minutes; by a server's defaults, after two hours."""


class TrialDatabase:
    """An Optuna database by its URL.

    Args:
        url: of SQLAlchemy; ``postgresql://`` takes the driver psycopg 3.
        studies: of one grid, which are made where they are not there.

    Raises:
        ValueError: no Optuna, no driver, or a database that can't be opened: one line, without the password.
    """

    def __init__(self, url: str, studies: Sequence[Study]) -> None:
        optuna = quiet_optuna()
        self.url = with_driver(url)
        self._session: Any = None
        self._held: set[str] = set()
        self._studies: dict[str, Any] = {}
        own = "connect_timeout" in self.url or "+psycopg" not in self.url
        timeout = {} if own else {"connect_timeout": CONNECT_SECONDS}
        settings = {"connect_args": timeout, "pool_pre_ping": True} if self._shared else {}
        try:
            if self._shared:
                self._session = _session(self.url, settings)
            with self._alone():
                self._storage = optuna.storages.RDBStorage(self.url, engine_kwargs=settings)
                for study in studies:
                    self._studies[study.id] = optuna.create_study(
                        study_name=f"{study.cell.kind} [{study.id}]",
                        storage=self._storage,
                        direction="maximize" if better(study.metric) == "max" else "minimize",
                        load_if_exists=True,
                    )
        except ImportError as error:
            self.close()
            install = 'Run `pip install "equipoise[postgres]"`' if self._shared else "Install it"
            raise ValueError(
                f"The database of trials, {shown(url)}, needs a driver ({error}). {install}, or leave "
                "`tuning.storage` out."
            ) from None
        except Exception as error:
            self.close()
            sqlite = " A SQLite file can be deleted: the results of trials are in the store."
            raise ValueError(
                f"The database of trials, {shown(url)}, can't be opened ({_reason(error, url)})."
                f"{sqlite if self.url.startswith('sqlite') else ' Nothing was run.'}"
            ) from None

    def read(self, study: Study) -> list[Trial]:
        """The trials that have ended, as they were added.

        Raises:
            OSError: the database no longer answers.
        """
        from optuna.trial import TrialState

        with self._answering():
            found = []
            for each in self._studies[study.id].get_trials(states=(TrialState.COMPLETE, TrialState.FAIL)):
                kept = each.user_attrs
                if {"number", "seed", "cell"} <= kept.keys():  # what somebody else added is none of ours
                    value = each.value if each.state == TrialState.COMPLETE else None
                    found.append(Trial(kept["number"], dict(each.params), kept["seed"], value, kept["cell"]))
            return found

    def add(self, study: Study, trial: Trial) -> None:
        """Keep an ended trial; one that is there stays as it is, but for a figure where there was none.

        Raises:
            OSError: the database no longer answers.
        """
        with self._answering(), self._alone():
            there = [each.value for each in self.read(study) if each.cell == trial.cell]
            if not there or (trial.value is not None and there == [None] * len(there)):
                self._studies[study.id].add_trial(frozen(trial, distributions(study.search)))

    def claim(self, id: str) -> bool:
        """Hold a cell; False where another process holds it. Without PostgreSQL nobody asks: always True.

        Raises:
            OSError: the database no longer answers.
        """
        if self._session is None or id in self._held:
            return True
        with self._answering():
            ours = bool(self._ask("SELECT pg_try_advisory_lock(:key)", _key(id)))
        if ours:
            self._held.add(id)
        return ours

    def release(self, id: str) -> None:
        """Let go of a cell.

        Raises:
            OSError: the database no longer answers.
        """
        if id in self._held:
            self._held.discard(id)
            with self._answering():
                self._ask("SELECT pg_advisory_unlock(:key)", _key(id))

    def close(self) -> None:
        """End all connections, and let go of all that is held."""
        if self._session is not None:
            self._session.invalidate()
            self._session.engine.dispose()
            self._session = None
        if hasattr(self, "_storage"):
            self._storage.remove_session()
            self._storage.engine.dispose()

    @property
    def _shared(self) -> bool:
        return self.url.startswith(POSTGRES)

    def _ask(self, sql: str, key: int) -> Any:
        from sqlalchemy import text

        return self._session.execute(text(sql), {"key": key}).scalar()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else writes meanwhile."""
        if self._session is not None:
            self._ask("SELECT pg_advisory_lock(:key)", KEY)
            try:
                yield
            finally:
                self._ask("SELECT pg_advisory_unlock(:key)", KEY)
            return
        folder = Path(self.url.partition("///")[2]).parent
        if not self.url.startswith("sqlite") or not folder.is_dir():
            yield
            return
        import fcntl

        handle = os.open(folder, os.O_RDONLY)  # not the file: closing that would let go of SQLite's own locks
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        from optuna.exceptions import StorageInternalError
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (SQLAlchemyError, StorageInternalError) as error:
            raise OSError(
                f"The database of trials, {shown(self.url)}, no longer answers ({_reason(error, self.url)}). "
                "The same command goes on where it was."
            ) from None


def with_driver(url: str) -> str:
    """With psycopg 3 where a PostgreSQL URL names no driver: which one SQLAlchemy takes depends on its version."""
    return re.sub(r"^postgres(ql)?://", f"{DRIVER}://", url)


def _session(url: str, settings: dict[str, Any]) -> Any:
    """A connection that stays: what it holds is let go of when it ends."""
    from sqlalchemy import create_engine, text

    session = create_engine(url, **settings).connect().execution_options(isolation_level="AUTOCOMMIT")
    for line in SESSION:
        session.execute(text(line))
    return session


def _key(id: str) -> int:
    return int(id[:15], 16)


def _reason(error: BaseException, url: str) -> str:
    """The first line of what the driver said, without the password."""
    while (inner := error.__cause__ or error.__context__) is not None and not hasattr(error, "orig"):
        error = inner
    lines = str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__]
    words = " ".join(lines[0].split()).rstrip(".")
    for secret in re.findall(r"://[^:/@]*:(.*)@|password=([^&]*)", url):
        for each in filter(None, secret):
            words = words.replace(each, "***").replace(unquote(each), "***")
    return words
