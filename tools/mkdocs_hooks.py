"""What MkDocs does to pages and docstrings. Formulas become MathML: no script, no font and no network to read them.

Pages write Markdown, with ``$x$`` and ``$$ x $$``. Docstrings may also use what editors understand of reStructuredText:
``.. math::``, ``:math:`x` ``, ``:class:`x` `` and ```text <https://...>`_``.
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
_MATH = re.compile(r":math:`([^`]+)`")
_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc):`~?([^`]+)`")
_LINK = re.compile(r"`([^`<]+?)\s*<(https?://[^`>]+)>`__?")
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)

_REPLACED = {"{aligned}": "{align*}", r"\!": ""}  # what the converter does not know


class _ToMarkdown(Preprocessor):
    def run(self, lines: list[str]) -> list[str]:
        text = _DIRECTIVE.sub(_block, "\n".join(lines) + "\n")
        text = _MATH.sub(lambda math: f"${' '.join(math[1].split())}$", text)
        text = _LINK.sub(r"[\1](\2)", text)
        return _ROLE.sub(r"`\1`", text).splitlines()


def _block(directive: re.Match[str]) -> str:
    indent, first, body = directive.groups()
    formulas = [formula for formula in [first, *re.split(r"\n[ ]*\n", dedent(body))] if formula.strip()]
    return "\n" + "".join(f"{indent}$${_aligned(' '.join(formula.split()))}$$\n\n" for formula in formulas)


def _aligned(formula: str) -> str:
    several = r"\\" in formula and r"\begin" not in formula
    return rf"\begin{{aligned}} {formula} \end{{aligned}}" if several else formula


class DocstringExtension(Extension):
    """Rewrites the little reStructuredText that docstrings use as Markdown."""

    def extendMarkdown(self, md: Markdown) -> None:
        """Markdown calls this once for each converter."""
        md.preprocessors.register(_ToMarkdown(md), "restructured", 40)


def _mathml(formula: re.Match[str]) -> str:
    display = "block" if formula[1] == "div" else "inline"
    latex = html.unescape(formula[2]).strip()
    for unknown, known in _REPLACED.items():
        latex = latex.replace(unknown, known)
    return convert(latex, display=display)


def on_config(config: Any) -> Any:
    """MkDocs calls this first."""
    config.markdown_extensions.append(DocstringExtension())
    return config


def on_page_content(content: str, **_: Any) -> str:
    """MkDocs calls this with the finished body of each page."""
    return _FORMULA.sub(_mathml, content)
