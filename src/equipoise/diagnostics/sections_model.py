"""Tables of what is inside a model: its representations, its experts, and what competition made of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from equipoise.diagnostics.section import (
    NOTHING,
    Content,
    Curve,
    Curves,
    Panel,
    Scatter,
    Section,
    bracketed,
    level_of,
    number,
    share_of,
)
from equipoise.diagnostics.wording import figure, name_of

IDLE = 0.1  # of an even share of the visits


def maps_section(content: Content) -> Section | None:
    """What a line reads off each representation, and t-SNE of them."""
    models = content.get("maps")
    if not models:
        return None
    metric = content["about"]["metric"]
    names = list(dict.fromkeys(name for each in models.values() for name in each["panels"]))
    rows = [
        (name, *(level_of(metric, each["panels"].get(name, {}).get("probe")) for each in models.values()))
        for name in names
    ]
    charts = []
    for model, each in models.items():
        panels = tuple(_panel(metric, name, found) for name, found in each["panels"].items())
        charts.append(Scatter(f"t-SNE of {model}", panels, tuple(each["labels"])))
    text = (
        f"A linear probe's {name_of(metric)}, out of fold. Of a pair: the fused representation from these two alone. "
        "In the pictures only who is near whom means something: t-SNE keeps no distances, and may show groups where "
        "there are none."
    )
    return Section("Representations", text, ("representation", *models), tuple(rows), charts=tuple(charts))


def experts_section(content: Content) -> Section | None:
    """How the experts of each mixture share the work."""
    found = content.get("experts") or []
    rows = []
    for each in found:
        even = 1 / len(each["load"])
        idle = sum(load < IDLE * even for load in each["load"])
        busiest = max(range(len(each["load"])), key=each["load"].__getitem__)
        rows.append(
            (each["name"], each["kind"], str(len(each["load"])), number(each["imbalance"], 2))
            + (f"{share_of(each['load'][busiest])} (expert {busiest + 1})", str(idle))
        )
    text = (
        "In evaluation, without the gate's noise. Imbalance: the deviation of the loads over their mean, 0 where all "
        f"work alike. Idle: less than {IDLE:g} of an even share of the visits."
    )
    columns = ("mixture", "routes", "experts", "imbalance", "busiest", "idle")
    return Section("Experts", text, columns, tuple(rows)) if rows else None


def local_section(content: Content) -> Section | None:
    """Which local representations the experts of vectors take."""
    found = [each for each in content.get("experts") or [] if each["kind"] == "vectors" and len(each["parts"]) > 1]
    if not found:
        return None
    count = max(len(each["parts"]) for each in found)
    rows = []
    for each in found:
        for expert, load in enumerate(each["load"]):
            taken = [share_of(part[expert]) for part in each["parts"]]
            label = f"{each['name']}: {expert + 1}"
            rows.append((label, share_of(load), *taken, *[NOTHING] * (count - len(taken))))
    text = (
        "A modality's local representations lie side by side in an expert's input. The share of each in what the "
        "expert's first layer gets, over the samples that it takes."
    )
    columns = ("expert", "visits", *(f"local {part + 1}" for part in range(count)))
    return Section("What the experts take", text, columns, tuple(rows))


def competition_section(content: Content) -> Section | None:
    """Competition strength by epoch."""
    found = content.get("competition_by_epoch") or []
    if not found:
        return None
    names = list(found[0]["strength"])
    rows = [(str(each["epoch"]), *(bracketed(each["strength"][name], "strength") for name in names)) for each in found]
    lines = tuple(line for name in names if (line := _line(name, found)) is not None)
    text = (
        "As in Fig. 2 of AGM: how much of what a modality says when it is trained alone can't be read off the joint "
        "model's last latent, by epoch of the joint training. 0: all of it can, 1: nothing."
    )
    chart = Curves("Competition strength d", "epoch", lines)
    return Section("Competition by epoch", text, ("epoch", *names), tuple(rows), charts=(chart,) if lines else ())


def _line(name: str, found: list[Mapping[str, Any]]) -> Curve | None:
    values = [(float(each["epoch"]), each["strength"][name]["strength"]) for each in found]
    points = tuple((epoch, value) for epoch, value in values if value is not None)
    return Curve(name, points, f"{points[-1][1]:.2f}") if points else None


def _panel(metric: str, name: str, found: Mapping[str, Any]) -> Panel:
    probe = found["probe"]
    shown = "" if probe is None else figure(metric, probe["value"])
    return Panel(name, tuple((x, y) for x, y in found["points"]), tuple(found["labels"]), shown)
