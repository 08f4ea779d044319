"""Tables of what surrounds a model: its data, its training, its controls, and damage to its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from equipoise.diagnostics.section import (
    NOTHING,
    Content,
    Curve,
    Curves,
    Picture,
    Section,
    figure_of,
    gap_of,
    level_of,
    number,
    p_of,
    point,
    share_of,
)
from equipoise.diagnostics.wording import name_of, percent, scale


def data_section(content: Content) -> Section | None:
    """What the data tell before any training."""
    data = content["data"]
    if data is None:
        return None
    metric = content["about"]["metric"]
    rows = [
        (name, level_of(metric, each), figure_of(metric, each["chance"]), p_of(each["p"]), str(each["trained_on"]))
        for name, each in data["floors"].items()
    ]
    said = []
    for name, each in data["balance"].items():
        share = each.get("largest")
        said.append(f"{name} {each['samples']}" + ("" if share is None else f" (commonest class {percent(share)})"))
    leakage = data["leakage"]
    leak = "" if leakage is None else " Splits leak." if leakage["leaks"] else " No leak between splits was found."
    split = content["about"]["split"]
    chosen = "a fifth of train" if split == "valid" or "valid" not in data["balance"] else "valid"
    text = (
        f"How far a line gets with pooled features: learned on train, its penalty chosen on {chosen}, scored on "
        f"{split}. Near chance doesn't prove that nothing is there. Samples: {', '.join(said)}.{leak}"
    )
    return Section(
        "The data before any training", text, ("modality", "floor", "chance", "p", "learned from"), tuple(rows)
    )


def training_section(content: Content) -> Section | None:
    """What the run's tables tell of its training."""
    trace = content.get("training")
    if trace is None:
        return None
    whole = trace["stages"]["encoders"]["whole"]
    rows = []
    for name in trace["stages"]["encoders"]["groups"]:
        factor, direction = trace["factors"].get(name), trace["directions"].get(name) or []
        last = next((each for each in reversed(direction) if each is not None), None)
        rows.append(
            (name, number(whole["norm"][name], 4), share_of(whole["largest"][name]), number(whole["ratio"][name], 2))
            + (share_of(whole["in_conflict"][name]), NOTHING if factor is None else number(factor["mean"], 2))
            + (number(last, 2),)
        )
    text = (
        f"Over {whole['steps']} steps. Ratio: the norm over the mean of the others', a median. In conflict: the norm "
        f"exceeds that mean by more than {percent(trace['tolerance'])}. "
        "Factor: mean of what the balancer multiplied by. Direction: cosine between the modality's own and the joint "
        "gradient, at the end."
    )
    columns = ("encoder", "gradient norm", "largest", "ratio", "in conflict", "factor", "direction")
    return Section("While it learned", text, columns, tuple(rows))


def controls_section(content: Content) -> Section | None:
    """The run beside its controls."""
    controls = content.get("controls")
    if controls is None:
        return None
    metric, rows, points = controls["metric"], [], []
    for row in controls["rows"]:
        if row["reason"] is not None:
            rows.append((row["name"], NOTHING, row["reason"], NOTHING, NOTHING))
            continue
        lead = row["lead"]
        shown = (NOTHING, NOTHING) if lead is None else (gap_of(metric, lead), p_of(lead["p"]))
        rows.append((row["name"], level_of(metric, row["score"]), *shown, str(row["epochs"])))
        points.append(point(metric, row["name"], row["score"]))
    text = (
        f"On the {controls['samples']} test samples, by the same recipe and budget. The lead is the run's; its p is "
        "corrected (Holm). One seed: what another one would change is not in the intervals."
    )
    constant = content["contributions"]["constant"]
    picture = Picture(name_of(metric), tuple(points), constant, "constant", scale(metric))
    return Section("Controls", text, ("control", "score", "the run's lead", "p", "epochs"), tuple(rows), picture)


def robustness_section(content: Content) -> Section | None:
    """What the model loses where something is missing."""
    found = content.get("robustness")
    if found is None:
        return None
    words = {"subset": "only {of}", "modalities": "{of} missing in samples", "frames": "{of} frames missing"}
    words["noise"] = "noise on {of}"
    table: dict[tuple[str, str], dict[float | None, float]] = {}
    for row in found["rows"]:
        table.setdefault((row["kind"], row["of"]), {})[row["level"]] = row["value"]
    rows = []
    for (kind, of), levels in table.items():
        known = [level for level in levels if level is not None]
        last = "" if not known else f"{max(known):g}"
        there = number(levels[max(known)] if known else None, 3)
        rows.append((words[kind].format(of=of), number(fmean(levels.values()), 3), last, there))
    text = (
        f"{found['metric']}: mean over levels, and at the last level; levels are rates, and deviations for noise. "
        "Every level is a mean over its draws."
    )
    columns = ("what", "mean", "last level", "there")
    return Section("What is missing or noisy", text, columns, tuple(rows), charts=_damage(found, table))


def _damage(
    found: Mapping[str, Any], table: Mapping[tuple[str, str], Mapping[float | None, float]]
) -> tuple[Curves, ...]:
    """Score against rate, one picture a kind of damage; each line begins at the whole score."""
    whole = next(iter(next(iter(table.values())).values()))
    axes = {
        "modalities": "share of samples without it",
        "frames": "share of frames missing",
        "noise": "noise, in deviations of each feature",
    }
    charts = []
    for kind, across in axes.items():
        lines = []
        for (each, of), levels in table.items():
            known = sorted((level, value) for level, value in levels.items() if level is not None)
            if each == kind and known:
                lines.append(Curve(of, ((0.0, whole), *known), number(known[-1][1], 3)))
        if lines:
            charts.append(Curves(found["metric"], across, tuple(lines), found.get("constant"), "constant"))
    return tuple(charts)
