"""What every process that decodes needs, loaded once in the process that they are all forked from."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress

RECIPE = "EQUIPOISE_RECIPE"
"""Environment variable with the recipe and the paths of its models: nothing else reaches the process that is forked."""


def load(recipe: str) -> None:
    """Import the libraries and build the extractors of a recipe. What fails here fails again, and is told, per clip."""
    for name in ("av", "cv2", "scipy.signal", "torch", "equipoise.cli.main", "equipoise.serve.worker"):
        with suppress(ImportError):
            __import__(name)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)  # clips run side by side; and threads do not survive a fork
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(1)
    from equipoise.extraction.clip_features import check_recipe
    from equipoise.extraction.recipe import Recipe

    settings, models = json.loads(recipe)
    check_recipe(Recipe(**settings), models)


if RECIPE in os.environ:
    with suppress(Exception):
        load(os.environ.pop(RECIPE))
