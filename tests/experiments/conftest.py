from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.experiments.postgres_server import Server, server

from equipoise.data import synthetic


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty generated utterances, for the tests of one file."""
    path = tmp_path_factory.mktemp("data") / "small"
    synthetic(path, n=60, seed=3)
    return path


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    """A PostgreSQL server, for the tests of one file; they skip themselves where there is none."""
    with server() as found:
        yield found
