from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.diagnostics.ridges import Ridge
from tests.diagnostics.subjects import signs
from torch import nn

from equipoise.data import Dataset, synthetic
from equipoise.diagnostics import audit
from equipoise.diagnostics.audit_report import Report
from equipoise.diagnostics.contribution import measure_contributions
from equipoise.diagnostics.floors import data_report
from equipoise.diagnostics.page_html import to_html
from equipoise.diagnostics.section import Section
from equipoise.diagnostics.sections import sections_of
from equipoise.diagnostics.subject import of_model
from equipoise.diagnostics.verdict import contribution_findings

NAMES = ("text", "audio", "vision")


def make(path: Path, names: tuple[str, ...] = NAMES, **given: Any) -> Dataset:
    """A line sees all that is in these data. A modality without a share of the label is noise alone."""
    return synthetic(
        path,
        modalities=names,
        dims=dict.fromkeys(names, 5),
        lengths=dict.fromkeys(names, (1, 3)),
        feature_noise=dict.fromkeys(names, 0.2),
        speed={name: float(given["alone"][name] > 0) for name in names},  # at 0 no latent shows
        shared=0.0,
        synergy=0.0,
        **given,
    )


def kinds(report: Report) -> dict[str | None, set[str]]:
    found: dict[str | None, set[str]] = {}
    for each in report.findings:
        found.setdefault(each.modality, set()).add(each.kind)
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    alone = {"text": 0.4, "audio": 0.4, "vision": 0.0}
    return make(tmp_path_factory.mktemp("audit") / "data", splits=(300, 60, 200), alone=alone, seed=1)


@pytest.fixture(scope="module")
def heard() -> list[tuple[int, int]]:
    """What the audit of `report` told of its progress."""
    return []


@pytest.fixture(scope="module")
def report(data: Dataset, heard: list[tuple[int, int]]) -> Report:
    return audit(Ridge(data, NAMES), data, progress=lambda *at: heard.append(at))


def test_a_closed_form_model_is_told_as_it_is(report: Report) -> None:
    found = kinds(report)
    assert found == {
        "text": {"adds"},
        "audio": {"adds"},
        "vision": {"noise"},
        None: {"additive"},
    }
    assert all(each.sentence in report.verdict for each in report.findings)


@pytest.mark.parametrize("alone", [(0.1, 0.5, 0.25), (0.25, 0.1, 0.5), (0.45, 0.3, 0.05)], ids=str)
def test_the_ranking_is_that_of_the_truth(alone: tuple[float, ...], tmp_path: Path) -> None:
    shares = dict(zip(NAMES, alone, strict=True))
    data = make(tmp_path / "data", splits=(600, 1, 300), alone=shares)
    found = audit(Ridge(data, NAMES), data, floors=False).content
    for kind in ("removal", "exchange", "shapley"):
        values = {name: each[kind]["value"] for name, each in found["contributions"]["modalities"].items()}
        assert sorted(NAMES, key=values.__getitem__) == sorted(NAMES, key=shares.__getitem__)
    shown = {name: each["share"] for name, each in found["responses"]["modalities"].items()}
    assert sorted(NAMES, key=shown.__getitem__) == sorted(NAMES, key=shares.__getitem__)


def test_noise_is_called_noise_in_eight_seeds(tmp_path: Path) -> None:
    """`python -m benchmarks.noise` does a hundred."""
    called = 0
    for seed in range(8):
        data = make(tmp_path / str(seed), NAMES[:2], splits=(150, 40, 60), alone={"text": 0.5, "audio": 0.0}, seed=seed)
        found = measure_contributions(of_model(Ridge(data, NAMES[:2]), data.split("test")), seed=seed)
        floors = data_report(data, ["audio"], leakage=False, seed=seed).floors
        removal = {name: each.removal for name, each in found.modalities.items()}
        said = contribution_findings(
            found.metric,
            removal,
            alone=found.alone,
            constant=found.constant,
            samples=60,
            floors={name: each.score for name, each in floors.items()},
        )
        kinds = {each.modality: each.kind for each in said}
        assert kinds["text"] == "adds"
        called += kinds["audio"] == "noise"
    assert called >= 7


def test_a_branch_that_learned_nothing_is_starved_by_the_floor_and_by_a_model_alone(
    report: Report, data: Dataset
) -> None:
    model = Ridge(data, NAMES)
    assert "starved" not in kinds(report)["audio"]
    model.starve("audio")
    found = audit(model, data)
    assert kinds(found)["audio"] == {"adds nothing", "starved"}
    (sentence,) = [each.sentence for each in found.findings if each.kind == "starved"]
    assert sentence.startswith("audio is starved: in a linear model of pooled features it reaches 0.")
    assert sentence.endswith("Try AGM or MMPareto.")
    assert "starved" not in kinds(found)["text"] | kinds(found)["vision"]

    alone = Ridge(data, ("audio",))
    concept = of_model(alone, data.split("test")).predictions()
    found = audit(model, data, floors=False, concepts={"audio": concept}, movement={"audio": {"share": 0.0}})
    (starved,) = [each for each in found.findings if each.kind == "starved"]
    assert starved.sentence.startswith("audio is starved: trained alone it reaches 0.")
    assert "its encoder moved 0.00 of what it moves when trained alone" in starved.sentence
    assert starved.evidence["competition"]["strength"] == pytest.approx(1, abs=0.15), "nothing of it is left"
    healthy = audit(Ridge(data, NAMES), data, floors=False, concepts={"audio": concept})
    assert healthy.content["competition"]["audio"]["strength"] < 0.05
    assert "starved" not in kinds(healthy)["audio"]


def test_a_foreign_model_in_three_lines() -> None:
    values = {name: torch.from_numpy(each)[:, None] for name, each in signs(25, "ab").items()}
    target = (values["a"] * values["b"]).squeeze(1) > 0
    net = Product().train()
    found = audit(net, {**values, "target": target.long()}, predict=lambda given, kept: net(given["a"], given["b"]))
    assert net.training
    assert kinds(found)[None] == {"interactions"}
    assert "the model gains 50.0 ± " in found.verdict[-1]
    assert found.verdict[-1].endswith("interactions between modalities matter.")
    assert found.content["about"] == {
        "model": "Product",
        "dataset": None,
        "split": None,
        "task": "classification",
        "metric": "accuracy",
        "samples": 100,
        "modalities": ["a", "b"],
        "seed": 0,
    }


def test_the_example_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/diagnosis.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    values = {name: torch.from_numpy(each)[:, None] for name, each in signs(25, "ab").items()}
    target = (values["a"] * values["b"]).squeeze(1) > 0
    names = {"model": Product().eval(), "text": values["a"], "audio": values["b"], "target": target.long()}
    exec(compile(block, "docs/diagnosis.md", "exec"), names)
    assert "interactions between modalities matter." in capsys.readouterr().out


class Product(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        assert not self.training
        product = (a * b).squeeze(1)
        return torch.stack([-product, product + 1e-9], dim=1)


def test_what_does_not_fit_is_one_line(data: Dataset) -> None:
    x = {"a": np.zeros((4, 1)), "b": np.zeros((4, 1)), "target": np.arange(4.0)}
    said = lambda given, kept: np.zeros(len(given["a"]))  # noqa: E731
    with pytest.raises(ValueError, match="Parameter `predict` should be given where `data` is a mapping"):
        audit(None, x)
    with pytest.raises(ValueError, match=r"Parameter `data` should hold `target` beside the modalities. Found a"):
        audit(None, {"a": x["a"]}, said)
    with pytest.raises(ValueError, match=r"Parameter `modalities` should name what `data` holds. Found 'c'"):
        audit(None, x, said, modalities=["a", "c"])
    with pytest.raises(ValueError, match=r"two modalities or more. Found a"):
        audit(None, {"a": x["a"], "target": x["target"]}, said)
    with pytest.raises(ValueError, match="give others a mapping"):
        audit(None, data, said)
    with pytest.raises(ValueError, match=r"should hold 200 outputs for some of text, audio, vision. Found 3 for audio"):
        audit(Ridge(data, NAMES), data, floors=False, concepts={"audio": np.zeros(3)})


def test_progress_rises_to_its_end(report: Report, heard: list[tuple[int, int]]) -> None:
    assert {total for _, total in heard} == {800}
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)
    assert heard[-1] == (800, 800)


class Page(HTMLParser):
    """Elements that are open, cells by row, and what is referred to."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [str(value) for name, value in attrs if name in ("src", "href", "xlink:href", "srcset")]
        if tag not in ("meta", "circle", "path") or tag == "link":
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data.replace("\u00a0", " ")


def test_json_markdown_and_page_say_the_same(report: Report, tmp_path: Path) -> None:
    content = json.loads(report.to_json())
    assert content == report.to_dict()
    markdown = report.to_markdown()
    html = report.to_html(tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(html)
    assert page.open == []
    assert [each["sentence"] for each in content["verdict"]] == report.verdict
    said = re.findall(r"<li>(.*?)</li>", html)
    assert [unescape(each) for each in said] == report.verdict
    assert re.findall(r"^- (.*)$", markdown, re.MULTILINE) == report.verdict
    rows = [line.strip("| ").split(" | ") for line in markdown.splitlines() if line.startswith("| ")]
    assert page.rows == [row for row in rows if set(row[0]) != {"-"}]
    for name, each in content["contributions"]["modalities"].items():
        assert [name, f"{each['removal']['value']:.3f}"] in [[row[0], row[1].split(" ")[0]] for row in page.rows]


def test_per_sample_values_are_in_the_json(report: Report, data: Dataset) -> None:
    samples = report.content["samples"]
    assert samples["ids"] == data.split("test").ids()
    for name in NAMES:
        found = report.content["contributions"]["modalities"][name]["removal"]["value"]
        assert np.mean(samples["removal"][name]) == pytest.approx(found)


def test_the_page_needs_nothing_else(report: Report, tmp_path: Path) -> None:
    html = report.to_html(tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(html)
    assert page.references == []
    assert not re.search(r"https?:|url\(|@import|<script|<link|<img", html)
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in html
    assert "@media print" in html
    assert "prefers-color-scheme: dark" in html
    assert len(html) < 5_000_000
    for picture in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        assert re.search(r"<title[^>]*>[^<]+: ", picture)
        assert not re.search(r'(fill|stroke)="#', picture), "colours come from the page, light or dark"


def test_names_are_not_taken_for_markup(tmp_path: Path) -> None:
    x = {"<b>a|c</b>": np.array([[1.0], [2.0], [4.0]]), "b": np.zeros((3, 1)), "target": np.array([1.0, 2.0, 4.0])}
    found = audit(None, x, lambda given, kept: given["<b>a|c</b>"])
    html = found.to_html(tmp_path / "x.html").read_text(encoding="utf-8")
    assert "<b>" not in html
    assert "&lt;b&gt;a|c&lt;/b&gt;" in html
    assert "<b>a\\|c</b>" in found.to_markdown()


OUTER = """<body>{frames}<script>addEventListener("load", () => {{
const wide = (frame) => {{ const page = frame.contentDocument.documentElement;
return page.scrollWidth + "/" + page.clientWidth; }};
document.title = "wide " + [...document.querySelectorAll("iframe")].map(wide).join(" "); }});</script></body>"""
FRAME = '<iframe style="width:{width}px;height:900px;border:0" srcdoc="{page}"></iframe>'
WIDE = Section("Wide", "Many columns.", tuple("abcdefgh"), (("text+audio+vision", *["-0.156 [-0.409, 0.064]"] * 7),))


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium (apt-get install chromium)")
def test_chromium_opens_it_without_a_word_and_cuts_nothing_off(report: Report, tmp_path: Path) -> None:
    """On a phone, a desk, and paper (A4 less margins), dark as well as light: the colours are variables."""
    page = tmp_path / "report.html"
    page.write_text(to_html(report.title, report.verdict, [*sections_of(report.content), WIDE]), encoding="utf-8")
    source = page.read_text(encoding="utf-8")
    on_paper = source.replace("@media print", "@media all")
    frames = "".join(
        FRAME.format(width=width, page=each.replace("&", "&amp;").replace('"', "&quot;"))
        for width, each in ((390, source), (1200, source), (718, on_paper))
    )
    page.with_name("outer.html").write_text(OUTER.format(frames=frames), encoding="utf-8")
    alone, framed = browse(page, tmp_path), browse(page.with_name("outer.html"), tmp_path)
    assert "CONSOLE" not in alone.stderr + framed.stderr
    assert "Verdict" in alone.stdout
    assert "<title>wide 390/390 1200/1200 718/718</title>" in framed.stdout


def browse(page: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += ["--hide-scrollbars", "--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}"]
    command += ["--window-size=1300,1000", "--dump-dom", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def test_rows_of_robustness_and_the_controls_are_told(report: Report, data: Dataset) -> None:
    constant = report.content["data"]["constant"]["mae"]

    def rows(kept: float) -> list[dict[str, Any]]:
        return [
            {"kind": "subset", "of": "text+audio+vision", "level": None, "draw": 0, "metrics": {"mae": constant / 2}},
            *(
                {"kind": "modalities", "of": "all", "level": 0.5, "draw": draw, "metrics": {"mae": mae}}
                for draw, mae in enumerate((constant * (1 - kept / 2) - 0.01, constant * (1 - kept / 2) + 0.01))
            ),
        ]

    found = report.with_robustness(rows(0.4))
    assert found.findings[:-1] == report.findings
    assert found.findings[-1].kind == "fragile"
    assert "it keeps 40 % of its lead" in found.verdict[-1]
    assert report.with_robustness(rows(0.7)).findings == report.findings
    assert "## What is missing or noisy" in found.to_markdown()
    assert "robustness" not in report.content
