"""Formulas of the docs, turned into MathML while the site is built: no script, no font and no network to read them.

Pages write ``$x$`` and ``$$ x $$``; docstrings may also use ``.. math::`` and ``:math:`x` ``, which editors understand.
"""

from __future__ import annotations

import html
import re
from textwrap import dedent
from typing import Any

from latex2mathml.converter import convert
from markdown import Extension, Markdown
from markdown.preprocessors import Preprocessor

_DIRECTIVE = re.compile(r"^( *)\.\. math::[ ]*(.*)\n((?:\1[ ]+\S.*\n|[ ]*\n)*)", re.MULTILINE)
_ROLE = re.compile(r":math:`([^`]+)`")
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)

_REPLACED = {"{aligned}": "{align*}", r"\!": ""}  # what the converter does not know


class _Dollars(Preprocessor):
    def run(self, lines: list[str]) -> list[str]:
        text = _DIRECTIVE.sub(_block, "\n".join(lines) + "\n")
        return _ROLE.sub(lambda role: f"${' '.join(role[1].split())}$", text).splitlines()


def _block(directive: re.Match[str]) -> str:
    indent, first, body = directive.groups()
    formulas = [formula for formula in [first, *re.split(r"\n[ ]*\n", dedent(body))] if formula.strip()]
    return "\n" + "".join(f"{indent}$${' '.join(formula.split())}$$\n\n" for formula in formulas)


class MathExtension(Extension):
    """Reads both directives of reStructuredText as the dollars of Markdown."""

    def extendMarkdown(self, md: Markdown) -> None:
        """Markdown calls this once for each converter."""
        md.preprocessors.register(_Dollars(md), "math-dollars", 40)


def _mathml(formula: re.Match[str]) -> str:
    display = "block" if formula[1] == "div" else "inline"
    latex = html.unescape(formula[2]).strip()
    for unknown, known in _REPLACED.items():
        latex = latex.replace(unknown, known)
    return convert(latex, display=display)


def on_config(config: Any) -> Any:
    """MkDocs calls this first."""
    config.markdown_extensions.append(MathExtension())
    return config


def on_page_content(content: str, **_: Any) -> str:
    """MkDocs calls this with the finished body of each page."""
    return _FORMULA.sub(_mathml, content)
