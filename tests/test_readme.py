"""The README's code runs, and what it tells the reader to type exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

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


def test_subcommands_exist() -> None:
    cli = pytest.importorskip("equipoise.cli.main")
    asked = {
        words[1]
        for block in blocks("sh")
        for line in block.splitlines()
        if (words := line.split())[:1] == ["equipoise"]
    }
    assert asked
    assert asked <= set(cli.COMMANDS)


def test_links_inside_the_repository_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!https?://)([^)#]+)", README)
    assert targets
    missing = [target for target in targets if not (ROOT / target).exists()]
    assert missing == []
