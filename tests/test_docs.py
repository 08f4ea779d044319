"""Every method, model and command has a page that the site leads to, and its formulas need no script to be read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from equipoise.balancers import BALANCERS
from equipoise.cli.main import COMMANDS
from equipoise.models import MODELS

ROOT = Path(__file__).resolve().parents[1]


def file_of(public: type) -> str:
    """The name of the file that defines a class: its page bears the same."""
    return public.__module__.rpartition(".")[2].lstrip("_")


PAGES = [
    *(f"balancers/{file_of(balancer)}.md" for balancer in BALANCERS.values()),
    *(f"models/{file_of(model)}.md" for model in MODELS.values()),
    *(f"cli/{name}.md" for name in COMMANDS),
]


def listed(nav: object) -> set[str]:
    """The pages in a part of the navigation."""
    if isinstance(nav, str):
        return {nav}
    parts = nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else []
    return set().union(*(listed(part) for part in parts))


@pytest.mark.parametrize("page", PAGES)
def test_has_a_page_that_the_site_leads_to(page: str) -> None:
    assert (ROOT / "docs" / page).is_file()
    assert page in listed(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])


@pytest.mark.parametrize("balancer", BALANCERS.values())
def test_balancers_are_in_the_table_of_balancers(balancer: type) -> None:
    row = f"| [`{balancer.__name__}`]({file_of(balancer)}.md) |"
    assert row in (ROOT / "docs/balancers/index.md").read_text(encoding="utf-8")


def rendered(text: str) -> str:
    """A page's body as the site shows it."""
    pytest.importorskip("latex2mathml")
    markdown = pytest.importorskip("markdown")
    from tools import mkdocs_hooks

    extensions = ["pymdownx.arithmatex", mkdocs_hooks.DocstringExtension()]
    html = markdown.markdown(text, extensions=extensions, extension_configs={"pymdownx.arithmatex": {"generic": True}})
    return mkdocs_hooks.on_page_content(html)


@pytest.mark.parametrize(
    ("text", "display"),
    [
        ("with $a < b$.", "inline"),
        ("with :math:`a\n    < b`.", "inline"),
        ("$$a < b$$", "block"),
        ("$$\na < b\n$$", "block"),
        ("Said:\n\n.. math:: a < b\n\nor not", "block"),
        ("Said:\n\n.. math::\n    a\n    < b\n\nor not", "block"),
        ("Said:\n\n    .. math::\n\n        a < b\n".replace("\n    ", "\n"), "block"),
    ],
)
def test_each_way_to_write_a_formula_gives_the_same_mathml(text: str, display: str) -> None:
    found = re.findall(r"<math[^>]*display=\"(\w+)\">(.*?)</math>", rendered(text))
    assert found == [(display, "<mrow><mi>a</mi><mo>&#x0003C;</mo><mi>b</mi></mrow>")]


def test_text_after_a_formula_stays_text() -> None:
    html = rendered("One\n\n.. math:: a\n\nTwo `$x$` and 5 $ or 6 $.")
    assert "<p>Two <code>$x$</code> and 5 $ or 6 $.</p>" in html
    assert html.count("<math") == 1


@pytest.mark.parametrize(
    "text", [r"$$\begin{aligned} a &= b \\ c &= d \end{aligned}$$", ".. math::\n    a &= b \\\\\n    c &= d\n"]
)
def test_a_formula_of_two_lines_is_a_table(text: str) -> None:
    html = rendered(text)
    assert html.count("<mtr>") == 2
    assert "&amp;" not in html
    assert "<mi>&</mi>" not in html


def test_roles_and_links_of_docstrings_become_markdown() -> None:
    html = rendered("See :class:`~a.B` and `the\npaper <https://arxiv.org/abs/1>`_.")
    assert html == '<p>See <code>a.B</code> and <a href="https://arxiv.org/abs/1">the\npaper</a>.</p>'
