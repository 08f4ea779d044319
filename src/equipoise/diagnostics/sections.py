"""An audit's content as titled tables and pictures: the same for the page and for Markdown."""

from __future__ import annotations

from equipoise.diagnostics.section import (
    NOTHING,
    Content,
    Picture,
    Point,
    Section,
    bracketed,
    figure_of,
    gap_of,
    level_of,
    number,
    p_of,
    point,
)
from equipoise.diagnostics.sections_model import competition_section, experts_section, local_section, maps_section
from equipoise.diagnostics.sections_run import controls_section, data_section, robustness_section, training_section
from equipoise.diagnostics.wording import gap, name_of, scale, unit


def sections_of(content: Content) -> list[Section]:
    """All that is known, in order; what was not measured is left out."""
    makers = (
        _about,
        _contributions,
        _reached,
        _responses,
        _interactions,
        maps_section,
        experts_section,
        local_section,
        data_section,
        training_section,
        competition_section,
        controls_section,
        robustness_section,
    )
    return [section for make in makers if (section := make(content)) is not None and section.rows]


def _about(content: Content) -> Section:
    about, found = content["about"], content["contributions"]
    metric = about["metric"]
    rows = [
        ("samples", str(about["samples"])),
        ("modalities", ", ".join(about["modalities"])),
        ("score", name_of(metric)),
        ("the model", level_of(metric, found["score"])),
        ("all modalities muted", figure_of(metric, found["nothing"])),
        ("best constant answer", figure_of(metric, found["constant"])),
    ]
    text = "Higher scores are better. In brackets, here and below: the 95 % bootstrap interval over samples."
    return Section("The model", text, ("what", "figure"), tuple(rows))


def _contributions(content: Content) -> Section:
    metric, found = content["about"]["metric"], content["contributions"]["modalities"]
    rows = [
        (name, gap_of(metric, each["removal"]), p_of(each["removal"]["p"]))
        + (gap_of(metric, each["exchange"]), gap_of(metric, each["shapley"]))
        for name, each in found.items()
    ]
    text = (
        f"In {unit(metric)}. "
        "Removal: what the score loses without the modality; of two that say the same, neither adds. p is corrected in "
        "the verdict only. Exchange: what it loses with the modality taken from other samples. Shapley: the "
        "score shared out, what modalities have in common evenly."
    )
    points = [point(metric, name, each["removal"], gap) for name, each in found.items()]
    picture = Picture(f"Loss of {name_of(metric)} without the modality", tuple(points), 0.0, "nothing", scale(metric))
    return Section(
        "What each modality adds", text, ("modality", "removal", "p", "exchange", "Shapley"), tuple(rows), picture
    )


def _reached(content: Content) -> Section:
    metric, names = content["about"]["metric"], content["about"]["modalities"]
    floors = (content["data"] or {}).get("floors", {})
    sources = {
        "inside, alone": {name: each["alone"] for name, each in content["responses"]["modalities"].items()},
        "inside, probe": content["probes"],
        "trained alone": content["alone"],
        "data's floor": floors,
    }
    sources = {title: found for title, found in sources.items() if found}
    competition, movement = content["competition"], content["movement"]
    columns = ["modality", *sources]
    columns += ["competition strength d"] if competition else []
    columns += ["encoder moved, of alone"] if movement else []
    rows, points = [], []
    extra = [each for each in content["probes"] if each not in names]
    for name in [*names, *extra]:
        row = [name, *(level_of(metric, found.get(name)) for found in sources.values())]
        if competition:
            row.append(bracketed(competition.get(name), "strength"))
        if movement:
            row.append(number(movement.get(name, {}).get("share"), 2))
        rows.append(tuple(row))
        points += [
            point(metric, f"{name}: {title}", found[name])
            for title, found in sources.items()
            if name in found and found[name]["value"] is not None
        ]
    text = (
        "Inside, alone: the model with the other modalities muted. Probe: a line on the modality's "
        "representation, out of fold. Trained alone: a model of this modality by the same recipe. The data's floor: a "
        "line on pooled features, before any training. What reaches far less inside than elsewhere is starved."
    )
    if competition:
        text += " Competition strength: 0 where the joint latent tells what the modality's own model says, 1 where not."
    constant = content["contributions"]["constant"]
    return Section(
        "What each modality reaches",
        text,
        tuple(columns),
        tuple(rows),
        Picture(name_of(metric), tuple(points), constant, "constant", scale(metric)),
    )


def _responses(content: Content) -> Section:
    metric, found = content["about"]["metric"], content["responses"]["modalities"]
    rows, points = [], []
    for name, each in found.items():
        share, low, high = each["share"], each["share_low"], each["share_high"]
        told = None if share is None else {"value": share, "low": low, "high": high}
        rows.append((name, bracketed(told, "value"), level_of(metric, each["score"])))
        if told is not None and low is not None:
            points.append(Point(name, share, low, high, f"{share:.2f}"))
    text = (
        "A response is the modality's Shapley value of the output. Share: the part of the output's variance that comes "
        "with it. Score: of the response, taken for a prediction (Acc_m of AGM)."
    )
    picture = Picture("Share of the output", tuple(points), 1 / len(found), "even") if points else None
    return Section(
        "What each modality says",
        text,
        ("modality", "share of the output", "score of the response"),
        tuple(rows),
        picture,
    )


def _interactions(content: Content) -> Section:
    metric, emap = content["about"]["metric"], content["emap"]
    rows = [("all, by EMAP", gap_of(metric, emap["gain"]), NOTHING, number(emap["interaction_share"], 3))]
    for pair, each in content["interactions"]["pairs"].items():
        synergy, twice = gap_of(metric, each["synergy"]), gap_of(metric, each["redundancy"])
        rows.append((pair, synergy, twice, number(each["strength"], 3)))
    text = (
        f"In {unit(metric)}. "
        "By EMAP: what the model scores beyond its additive projection, and the part of the output's variance that no "
        "sum over modalities explains. By pair: synergy is what the interaction is worth, redundancy what both say; "
        "the last column is the interaction's deviation over the output's."
    )
    return Section("Interactions", text, ("modalities", "synergy", "redundancy", "in the output"), tuple(rows))
