"""What an audit found: one content, as sentences, JSON, Markdown and a page."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from equipoise.diagnostics.controls import Controls
from equipoise.diagnostics.page_html import to_html
from equipoise.diagnostics.page_markdown import to_markdown
from equipoise.diagnostics.robustness import EVERY
from equipoise.diagnostics.sections import sections_of
from equipoise.diagnostics.traces import Trace
from equipoise.diagnostics.verdict import Finding
from equipoise.diagnostics.verdict_run import control_findings, robustness_finding, training_finding

HALF = 0.5  # the rate of missing modalities that the verdict is about


@dataclass(frozen=True)
class Report:
    """The result of an audit.

    Attributes:
        content: plain JSON values, as :meth:`to_dict` gives them.
    """

    content: dict[str, Any]

    @property
    def verdict(self) -> list[str]:
        """The sentences."""
        return [each["sentence"] for each in self.content["verdict"]]

    @property
    def findings(self) -> list[Finding]:
        """The sentences with the rules that fired and their evidence."""
        return [Finding(**each) for each in self.content["verdict"]]

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain JSON values: a number that JSON lacks (NaN) is None."""
        return copy.deepcopy(self.content)

    def to_json(self) -> str:
        """Everything, with what each sample adds."""
        return json.dumps(self.content, ensure_ascii=False, allow_nan=False)

    def to_markdown(self) -> str:
        """The verdict and its tables."""
        return to_markdown(self.title, self.verdict, sections_of(self.content))

    def to_html(self, path: str | Path) -> Path:
        """Write one self-contained page: verdict, tables and pictures.

        Raises:
            OSError: it can't be written.
        """
        file = Path(path)
        file.write_text(to_html(self.title, self.verdict, sections_of(self.content)), encoding="utf-8")
        return file

    @property
    def title(self) -> str:
        """What was audited on what."""
        about = self.content["about"]
        where = " ".join(filter(None, [about["dataset"], about["split"]]))
        return f"Diagnosis of {about['model'] or 'a model'}" + (f" on {where}" if where else "")

    def with_trace(self, trace: Trace) -> Report:
        """The report, with what a run's tables say of its training."""
        whole = trace.stages["encoders"].whole
        found = training_finding(
            whole.steps, whole.largest, whole.conflict_rate, whole.dominance_before, whole.dominance_after
        )
        return self._with("training", trace.to_dict(), found if whole.steps else [])

    def with_controls(self, controls: Controls) -> Report:
        """The report, with the run's controls."""
        content = controls.to_dict()
        return self._with("controls", content, control_findings(controls.metric, content["rows"]))

    def with_robustness(self, rows: Sequence[Mapping[str, Any]]) -> Report:
        """The report, with what the model loses where modalities, frames or features are damaged.

        Args:
            rows: of :mod:`equipoise.diagnostics.robustness`.
        """
        metric = "accuracy" if self.content["about"]["task"] == "classification" else "mae"
        sign = 1 if metric == "accuracy" else -1
        levels: dict[tuple[str, str, float | None], list[float]] = {}
        for row in rows:
            levels.setdefault((row["kind"], row["of"], row["level"]), []).append(row["metrics"][metric])
        curves = [
            {"kind": kind, "of": of, "level": level, "value": fmean(values)}
            for (kind, of, level), values in levels.items()
        ]
        constant = ((self.content["data"] or {}).get("constant") or {}).get(metric)
        whole, half = next(iter(levels.values()), None), levels.get(("modalities", EVERY, HALF))
        found = []
        if whole and half and constant is not None:
            found = robustness_finding(sign * fmean(whole), sign * fmean(half), sign * constant, HALF)
        return self._with("robustness", {"metric": metric, "constant": constant, "rows": curves}, found)

    def with_maps(self, maps: Mapping[str, Any]) -> Report:
        """The report, with maps of representations.

        Args:
            maps: ``{model: what measure_maps gives}``, such as ``{"the run": ..., "unbalanced": ...}``.
        """
        return self._with("maps", dict(maps), [])

    def with_competition(self, epochs: Sequence[Mapping[str, Any]]) -> Report:
        """The report, with competition strengths by epoch: ``[{"epoch": 1, "strength": {m: {...}}}, ...]``."""
        return self._with("competition_by_epoch", list(epochs), [])

    def _with(self, key: str, value: Any, found: list[Finding]) -> Report:
        content = self.to_dict() | {key: finite(value)}
        content["verdict"] += [finite(each.to_dict()) for each in found]
        return Report(content)


def finite(value: Any) -> Any:
    """NaN and infinity as None, which JSON has; keys as strings, as JSON has them."""
    if isinstance(value, Mapping):
        return {str(key): finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not abs(value) < float("inf") else value
