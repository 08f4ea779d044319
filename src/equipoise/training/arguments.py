"""Keyword arguments from a config, checked against the class that will take them."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Collection, Mapping
from typing import Any, TypeVar, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

T = TypeVar("T")


def unknown(kind: str, name: str, valid: Collection[str], *, prefix: str = "") -> str:
    """One line about a name that nobody has, with the nearest that somebody has."""
    lowered = {each.lower(): each for each in valid}
    near = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    meant = f" Did you mean `{prefix}{lowered[near[0]]}`?" if near else ""
    return f"Unknown {kind} `{prefix}{name}`.{meant} Valid: {', '.join(sorted(valid))}."


def class_named(name: str, classes: Mapping[str, type[T]], *, key: str, also: Collection[str] = ()) -> type[T]:
    """The class of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in classes:
        raise ValueError(f"Config key `{key}`: {unknown('name', name, [*classes, *also])}")
    return classes[name]


def check_arguments(
    constructor: type,
    arguments: Mapping[str, Any],
    *,
    key: str,
    fixed: Collection[str] = (),
    also: Collection[str] = (),
) -> dict[str, Any]:
    """The arguments, each converted to the type its parameter declares.

    Args:
        constructor: the class.
        arguments: values by parameter name.
        key: where they stand in the config, for the errors.
        fixed: parameters that no config may set.
        also: keys beside the arguments, offered as near names too.

    Raises:
        ValueError: an unknown or fixed name, a value of another type, or a required argument left out.
    """
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(constructor).parameters.items()
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD) and name not in fixed
    }
    hints = get_type_hints(vars(constructor)["__init__"])
    checked: dict[str, Any] = {}
    for name, value in arguments.items():
        if name not in parameters:
            raise ValueError(unknown("config key", name, [*parameters, *also], prefix=f"{key}."))
        checked[name] = _converted(value, hints.get(name, Any), f"{key}.{name}")
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in checked:
            raise ValueError(f"Config key `{key}.{name}` is required by {constructor.__name__}. Found none.")
    return checked


def _converted(value: Any, hint: Any, where: str) -> Any:
    try:
        # No NaN and no infinity: comparisons let both through, and training only fails later, elsewhere.
        config = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
        return TypeAdapter(hint, config=config).validate_python(value)
    except ValidationError as error:
        message = error.errors()[0]["msg"]
        raise ValueError(
            f"Config key `{where}`: {message[:1].lower()}{message[1:]}. Found `{where} = {value!r}`."
        ) from None
