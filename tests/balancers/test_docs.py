"""The code on the methods' pages, and the example, run as they stand."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(page for page in (ROOT / "docs/balancers").glob("*.md") if page.name != "index.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_on_a_page_runs(page: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert blocks
    names: dict[str, object] = {}
    for number, block in enumerate(blocks, start=1):
        exec(compile(block, f"{page.name}, block {number}", "exec"), names)


def test_the_example_balances_a_model_that_knows_nothing_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    example = runpy.run_path(str(ROOT / "examples/plain_pytorch.py"))
    plain, _ = example["train"](False, steps=30)
    balanced, balancer = example["train"](True, steps=30)
    text, audio, vision = balancer.trace["factors"].tolist()
    assert text < 0.9 < audio
    assert text < vision
    assert int(balancer.steps) == 30
    accuracy = example["accuracy"]
    assert accuracy(balanced) > 0.9
    assert any(not (x == y).all() for x, y in zip(plain.parameters(), balanced.parameters(), strict=True))
    assert capsys.readouterr().out == ""
