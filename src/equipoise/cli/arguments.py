"""What argparse lacks: errors of one line that name the nearest valid word, and dotted flags for settings."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that never abbreviates and whose errors are a `ValueError` of one line."""

    def __init__(self, **options: Any) -> None:
        defaults: dict[str, Any] = {"allow_abbrev": False, "formatter_class": argparse.RawDescriptionHelpFormatter}
        super().__init__(**{**defaults, **options})

    def error(self, message: str) -> NoReturn:
        """Raise the message, with the nearest valid word where a choice is wrong."""
        choice = re.search(r"invalid choice: '?(.*?)'? \(choose from (.*)\)", message)
        if choice:
            valid = [word.strip(" '") for word in choice[2].split(",")]
            message = f"unknown `{choice[1]}`.{nearest(choice[1], valid)} Valid: {', '.join(valid)}."
        raise ValueError(f"{message.rstrip('.')}. See `{self.prog} --help`.")


def nearest(word: str, valid: Iterable[str]) -> str:
    """` Did you mean `x`?` for the valid word most like `word`, or nothing.

    >>> nearest("trian", ["train", "list"])
    ' Did you mean `train`?'
    """
    names = list(valid)
    lowered = {name.lower(): name for name in names}
    found = difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    return f" Did you mean `{lowered[found[0]]}`?" if found else ""


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Take the dotted flags out of a command line.

    `--a.b value` and `--a.b=value` set a value; a dotted flag with no value after it means `true`. They are taken out
    before argparse sees them: it would read the value of a flag it does not know as a positional argument.

    Returns:
        The other arguments, and the settings; where one is given twice, the last counts.

    >>> split_overrides(["train", "--train.epochs", "3", "run.yaml", "--model.masked"])
    (['train', 'run.yaml'], {'train.epochs': '3', 'model.masked': 'true'})
    """
    kept: list[str] = []
    overrides: dict[str, str] = {}
    position = 0
    while position < len(arguments):
        word = arguments[position]
        position += 1
        name, equals, value = word[2:].partition("=")
        if not word.startswith("--") or "." not in name:
            kept.append(word)
        elif equals:
            overrides[name] = value
        elif position < len(arguments) and not arguments[position].startswith("--"):
            overrides[name] = arguments[position]
            position += 1
        else:
            overrides[name] = "true"
    return kept, overrides


def reject_unknown(unknown: Sequence[str], parser: argparse.ArgumentParser) -> NoReturn:
    """Refuse the arguments that `parser` did not take.

    Raises:
        ValueError: always; the message names the nearest valid flag.
    """
    word = next((word for word in unknown if word.startswith("-")), unknown[0])
    name = word.partition("=")[0]
    kind = "flag" if name.startswith("-") else "argument"
    raise ValueError(f"unknown {kind} `{name}`.{nearest(name, _flags(parser))} See `{parser.prog} --help`.")


def _flags(parser: argparse.ArgumentParser) -> list[str]:
    flags: list[str] = []
    for action in parser._actions:
        flags += action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                flags += _flags(inner)
    return flags


def pairs(items: Sequence[str] | None, flag: str) -> dict[str, str] | None:
    """The values of a flag that takes NAME=VALUE; None where it is not given.

    >>> pairs(["label=y", "text=words"], "--map")
    {'label': 'y', 'text': 'words'}
    """
    if items is None:
        return None
    for item in items:
        if not all(item.partition("=")[::2]):
            raise ValueError(f"`{flag}` takes NAME=VALUE. Found {item!r}.")
    return {item.partition("=")[0]: item.partition("=")[2] for item in items}
