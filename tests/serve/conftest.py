from __future__ import annotations

from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path

import pytest
from tests.serve.models import save_model, sound_recipe
from tests.serve.running import Running, running

from equipoise.serve.limits import Limits
from equipoise.serve.sandbox import Sandbox

pytest.importorskip("fastapi")
pytest.importorskip("av")


@pytest.fixture(scope="session", autouse=True)
def loaded() -> None:
    """Processes are forked from one that has the libraries, as in a server: other tests start it without them."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined]
    Sandbox(sound_recipe(), Limits())


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reads transcripts and sound, with random weights."""
    return save_model(tmp_path_factory.mktemp("model"), sound_recipe())


@pytest.fixture(scope="session")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """It answers for all tests; one that needs other limits starts its own."""
    with running(model, tmp_path_factory.mktemp("scratch")) as found:
        yield found
