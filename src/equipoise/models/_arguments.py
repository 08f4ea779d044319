"""What a model was built with, kept beside it, so that a saved one can be built again."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, cast

from torch import nn

_NAME = "_constructor_arguments"


def keep_arguments(kind: type[nn.Module]) -> None:
    """Make a class's instances remember all of their constructor's arguments, defaults included, for `arguments_of`.

    A ``text_encoder`` is a part with weights, not an argument, and is left out. A subclass remembers nothing: what its
    own constructor takes is unknown here.
    """
    init: Callable[..., None] = vars(kind)["__init__"]
    signature = inspect.signature(init)

    @functools.wraps(init)
    def remembering(self: nn.Module, *args: Any, **given: Any) -> None:
        bound = signature.bind(self, *args, **given)
        bound.apply_defaults()
        # Before the constructor runs: it may change what it is given.
        kept = {name: _copied(value) for name, value in list(bound.arguments.items())[1:] if name != "text_encoder"}
        init(self, *args, **given)
        if type(self) is kind:
            setattr(self, _NAME, kept)

    cast(Any, kind).__init__ = remembering


def arguments_of(model: nn.Module) -> dict[str, Any]:
    """The keyword arguments that built a model of `equipoise.models`, all but ``text_encoder``.

    Raises:
        ValueError: the model is of another class.
    """
    kept = getattr(model, _NAME, None)
    if not isinstance(kept, dict):
        raise ValueError(
            f"Parameter `model` should be a model of `equipoise.models`. Found a {type(model).__name__}: unwrap it, "
            "or save its `state_dict`."
        )
    return {name: _copied(value) for name, value in kept.items()}


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(each) for key, each in value.items()}
    return [_copied(each) for each in value] if isinstance(value, list | tuple) else value
