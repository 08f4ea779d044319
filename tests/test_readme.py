"""The README's code runs, and what it tells the reader to type exists."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from equipoise.cli.arguments import Parser, split_overrides
from equipoise.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def test_python_blocks_run() -> None:
    names: dict[str, object] = {}
    assert blocks("python")
    for number, block in enumerate(blocks("python"), start=1):
        exec(compile(block, f"README.md, block {number}", "exec"), names)


def test_make_targets_exist() -> None:
    asked = set(re.findall(r"\bmake ([a-z]+)", README))
    rules = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert {"demo", "test"} <= asked <= rules


LINES = [
    words
    for block in blocks("sh")
    for line in block.splitlines()
    if (words := shlex.split(line, comments=True))[:1] == ["equipoise"]
]


@pytest.mark.parametrize("words", LINES, ids=" ".join)
def test_commands_are_understood(words: list[str]) -> None:
    assert words[1] in COMMANDS
    parser = Parser()
    module: Any = importlib.import_module(f"equipoise.cli.{words[1]}")
    module.add_parser(parser.add_subparsers(dest="command", parser_class=Parser))
    known, _ = split_overrides(words[1:])
    assert parser.parse_args(known).command == words[1]


def test_links_inside_the_repository_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!https?://)([^)#]+)", README)
    assert targets
    missing = [target for target in targets if not (ROOT / target).exists()]
    assert missing == []
