"""A model from a user's own function, named by its place: ``FILE.py:FUNCTION`` or ``package.module:FUNCTION``."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from equipoise.models.foreign import ForeignModel
from equipoise.training.arguments import unknown
from equipoise.training.files import replace_file

SOURCE = "model_source.py"


def is_foreign(name: str) -> bool:
    """Whether a model's name is the place of a function."""
    return ":" in name


def source_of(name: str) -> Path:
    """The file that a function stands in; nothing of it is run.

    Raises:
        FileNotFoundError: there is none.
    """
    place, _, function = name.rpartition(":")
    if not place or not function.isidentifier():
        raise ValueError(f"Config key `model.name` should be FILE.py:FUNCTION or MODULE:FUNCTION. Found {name!r}.")
    if place.endswith(".py"):
        path = Path(place)
    else:
        try:
            spec = importlib.util.find_spec(place)
        except ModuleNotFoundError:
            spec = None
        if spec is None or spec.origin is None:
            raise FileNotFoundError(f"Module not found: {place}, of the model {name!r}. A file is named {place}.py.")
        path = Path(spec.origin)
    if not path.is_file():
        raise FileNotFoundError(f"File not found: {path}, of the model {name!r}.")
    return path


def source_digest(name: str) -> str:
    """The function's name and a digest of its file's text, wherever the file lies.

    Other files that it imports are not in it.
    """
    digest = hashlib.sha256(source_of(name).read_bytes()).hexdigest()[:20]
    return f"{name.rpartition(':')[2]}@{digest}"


def keep_source(name: str, folder: Path) -> None:
    """Put a copy of the function's file into a run directory, or see that it is the one that stands there.

    Raises:
        ValueError: it is another.
    """
    text, kept = source_of(name).read_bytes(), folder / SOURCE
    if kept.is_file() and kept.read_bytes() != text:
        raise ValueError(
            f"{source_of(name)} has changed since the run in {folder} began; {kept} is as it was then. Restore it, "
            "choose another directory, or start anew without resuming (`--no-resume`)."
        )
    replace_file(kept, text)


def build_foreign(name: str, arguments: Mapping[str, Any], *, dims: Mapping[str, int], outputs: int) -> nn.Module:
    """Call the function, and make what it returns a model of ours, unless it is one.

    Args:
        name: its place.
        arguments: that the config gives.
        dims: ``{m: d_m}``.
        outputs: number of targets or classes.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no such function, an argument that it does not take, or something else than a model.
    """
    function = _function(name)
    parameters = inspect.signature(function).parameters
    free = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())
    for key in [] if free else arguments:
        if key not in parameters:
            raise ValueError(unknown("config key", key, [*parameters], prefix="model."))
    model = function(dims=dict(dims), outputs=outputs, **arguments)
    if not isinstance(model, nn.Module):
        raise ValueError(f"{name} should return an `nn.Module`. Found a {type(model).__name__}.")
    if all(callable(getattr(model, each, None)) for each in ("encode", "fuse", "modalities")):
        return model
    return ForeignModel(model, dims=dims, outputs=outputs)


def _function(name: str) -> Callable[..., Any]:
    path = source_of(name)
    place, _, word = name.rpartition(":")
    try:
        module = _module(path) if place.endswith(".py") else importlib.import_module(place)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} can't be imported: {type(error).__name__}: {reason}.") from error
    if not callable(found := getattr(module, word, None)):
        own = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ValueError(f"{path}: {unknown('function', word, own)}")
    return found  # type: ignore[no-any-return]


def _module(path: Path) -> ModuleType:
    """A file as a module, once for each content; what lies beside it can be imported too, as from a script."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    name = f"equipoise_foreign_{path.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
