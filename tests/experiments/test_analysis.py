from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy import stats
from tests.experiments.comparisons import comparison, trainings

from equipoise.experiments.analysis import analyse
from equipoise.experiments.crossed import crossed_test
from equipoise.experiments.rows import Row
from equipoise.experiments.verdicts import amount, record, verdict

fast = partial(analyse, resamples=200, permutations=400)


def test_a_figure_is_mean_sd_and_an_interval_over_samples() -> None:
    rows = trainings("plain", role="plain", sd=0.3)
    (figure,) = analyse(rows, resamples=2000).figures
    values = [row.metrics["accuracy"] for row in rows]
    assert (figure.mean, figure.sd) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    averaged = np.mean([row.scores["accuracy"] for row in rows], axis=0)
    reach = 1.96 * averaged.std() / math.sqrt(len(averaged))
    assert (figure.low, figure.high) == pytest.approx((figure.mean - reach, figure.mean + reach), abs=reach / 5)
    assert figure.paths[3] == "runs/mosi/plain/seed-3"


def test_a_pair_by_each_of_its_tests() -> None:
    plain, method = trainings("plain", role="plain", sd=0.5), trainings("agm", 0.03, sd=0.5)
    (pair,) = analyse([*plain, *method], permutations=4000).pairs
    left, right = (np.array([row.scores["accuracy"] for row in rows]) for rows in (method, plain))
    assert pair.difference == pytest.approx((left - right).mean())
    assert pair.corrected == pair.p_both == pytest.approx(crossed_test(left - right).p)

    def mean_of_difference(x: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
        return np.asarray(np.mean(x - y, axis=axis))

    def permuted(x: np.ndarray, y: np.ndarray) -> float:
        found = stats.permutation_test(
            (x, y), mean_of_difference, permutation_type="samples", n_resamples=4000, vectorized=True, rng=1
        )
        return float(found.pvalue)

    assert pair.p_samples == pytest.approx(permuted(left.mean(axis=0), right.mean(axis=0)), abs=0.03)
    assert pair.p_seeds == pytest.approx(permuted(left.mean(axis=1), right.mean(axis=1)))
    assert pair.p_least == 0.0625
    assert pair.favoured == int((left.mean(axis=1) > right.mean(axis=1)).sum())


def test_errors_are_turned_round() -> None:
    rows = [*trainings("plain", role="plain", metric="mae"), *trainings("agm", 0.2, metric="mae")]
    (pair,) = fast(rows).pairs
    assert pair.difference == pytest.approx(-0.2, abs=0.02)
    assert (pair.outcome, pair.favoured, pair.superiority) == ("worse", 0, 0.0)
    assert pair.high < 0


def test_every_method_meets_both_controls_and_the_multi_loss_the_plain_one() -> None:
    found = fast(comparison())
    against = {(pair.method, pair.against): pair.outcome for pair in found.pairs}
    assert against == {
        ("multi-loss", "plain"): "better",
        ("agm", "plain"): "better",
        ("agm", "multi-loss"): "better",
        ("sl", "plain"): "better",
        ("sl", "multi-loss"): "unclear",
        ("cp_%$", "plain"): "worse",
        ("cp_%$", "multi-loss"): "worse",
    }


def test_p_is_corrected_over_all_pairs_of_all_datasets() -> None:
    rows = [row for dataset in ("a", "b") for row in comparison(dataset=dataset)]
    pairs = fast(rows).pairs
    raw = np.array([pair.p_both for pair in pairs])
    order = np.argsort(raw)
    expected, largest = np.empty(len(raw)), 0.0
    for step, i in enumerate(order):
        largest = max(largest, (len(raw) - step) * raw[i])
        expected[i] = min(1.0, largest)
    assert [pair.corrected for pair in pairs] == pytest.approx(expected.tolist())
    assert len(pairs) == 14


def test_a_control_that_bears_a_methods_name_is_its_own() -> None:
    rows = [
        *trainings("plain", role="plain"),
        *trainings("plain (cp)", role="plain"),
        *trainings("multi-loss (cp)", role="multi_loss"),
        *trainings("agm"),
        *trainings("cp"),
        *(replace(row, against=("plain (cp)",)) for row in trainings("sl")),
    ]
    pairs = {(pair.method, pair.against) for pair in fast(rows).pairs}
    assert pairs == {
        ("multi-loss (cp)", "plain (cp)"), ("cp", "plain (cp)"), ("cp", "multi-loss (cp)"), ("sl", "plain (cp)"),
        ("agm", "plain"), ("agm", "multi-loss (cp)"),
    }  # fmt: skip


def test_samples_are_paired_by_id() -> None:
    plain, method = trainings("plain", role="plain", sd=0.5), trainings("agm", 0.05, sd=0.5)
    turned = [
        replace(row, samples=row.samples[::-1], scores={"accuracy": row.scores["accuracy"][::-1]}) for row in method
    ]
    straight, back = (fast([*plain, *rows]).pairs[0] for rows in (method, turned))
    assert (back.p_both, back.p_samples) == pytest.approx((straight.p_both, straight.p_samples))


def test_samples_that_do_not_count_are_left_out() -> None:
    def blank(rows: list[Row]) -> list[Row]:
        return [
            replace(row, metrics={"acc2_pn": 0.5}, scores={"acc2_pn": (*row.scores["accuracy"][:9], math.nan)},
                    samples=row.samples[:10])
            for row in rows
        ]  # fmt: skip

    plain, method = trainings("plain", role="plain"), trainings("agm", 0.1)
    (pair,) = fast([*blank(plain), *blank(method)], metric="acc2_pn").pairs
    kept = np.array([row.scores["accuracy"][:9] for row in method]) - [row.scores["accuracy"][:9] for row in plain]
    assert pair.p_both == pytest.approx(crossed_test(kept).p)


def test_a_metric_that_is_no_mean_over_samples_is_tested_over_seeds() -> None:
    rows = [
        replace(row, metrics={"corr": row.metrics["accuracy"]}, scores={})
        for row in [*trainings("plain", role="plain", seeds=7), *trainings("agm", 0.2, seeds=7)]
    ]
    found = fast(rows, metric="corr")
    (pair,) = found.pairs
    assert pair.corrected == pair.p_seeds == 2.0**-6
    assert math.isnan(pair.p_both)
    assert math.isnan(found.figures[0].low)
    assert pair.outcome == "better"


def test_one_seed_is_never_a_win() -> None:
    found = fast(comparison(seeds=1))
    assert {pair.outcome for pair in found.pairs} == {"unclear"}
    assert all(math.isnan(pair.corrected) for pair in found.pairs)
    assert any("One seed says nothing" in line for line in verdict(found))


def test_only_shared_seeds_are_compared_and_an_undefined_metric_is_not() -> None:
    rows = [*trainings("plain", role="plain", seeds=4), *trainings("agm", seeds=6), *trainings("nan")]
    rows[-1] = replace(rows[-1], metrics={"accuracy": math.nan})
    found = fast(rows)
    assert [(pair.method, pair.seeds) for pair in found.pairs] == [("agm", (0, 1, 2, 3)), ("nan", (0, 1, 2, 3))]
    assert found.to_dict()["figures"][2]["mean"] is None


def test_ranks_leave_out_modalities_alone_and_what_is_not_everywhere() -> None:
    rows = [row for dataset in ("a", "b", "c") for row in comparison(dataset=dataset)]
    rows += trainings("rare", dataset="a")
    (ranking,) = fast(rows).rankings.values()
    assert set(ranking.ranks) == {"agm", "multi-loss", "sl", "plain", "cp_%$"}
    assert (ranking.ranks["agm"], ranking.ranks["plain"], ranking.ranks["cp_%$"]) == (1, 4, 5)


def test_verdict_in_words() -> None:
    lines = verdict(fast(comparison()))
    assert lines[0] == (
        "Shown to beat both the plain training and the one with every modality's own loss, with the number of datasets "
        "and models where it does: agm (1 of 1); no other of 3 (corrected over 7 pairs, level 0.05)."
    )
    assert lines[1].startswith("mosi, LateFusion: agm beats plain by 20.")
    assert lines[2].endswith("it has not earned its place here.")
    assert "cp_%$ is worse than plain by 9." in lines[3] or "cp_%$ is worse than plain by 10." in lines[3]
    assert "can't fall below p = 0.0625" in lines[-1]


def test_verdict_where_nothing_wins_and_a_modality_leads() -> None:
    rows = [
        *trainings("plain", role="plain"), *trainings("text alone", 0.1, role="alone"), *trainings("agm"),
    ]  # fmt: skip
    lines = verdict(fast(rows))
    assert lines[0].startswith("No method of 1 is shown to beat both")
    assert lines[1].startswith("mosi, LateFusion: not shown to differ from plain: agm (")
    assert "points of accuracy" in lines[1]
    assert any("text alone is ahead of plain with all modalities by" in line for line in lines)
    ensemble = verdict(fast([*rows, *trainings("ensemble", 0.2, role="ensemble")]))
    assert any("ensemble is ahead of plain" in line for line in ensemble)


def test_a_gain_without_the_multi_loss_beside_it_is_no_proof() -> None:
    lines = verdict(fast([*trainings("plain", role="plain"), *trainings("agm", 0.1)]))
    assert lines[0].startswith("No method")
    assert "the gain may be that of such losses" in lines[1]


def test_the_record_is_json() -> None:
    found = record(fast(comparison(seeds=1)))
    assert json.loads(json.dumps(found, allow_nan=False)) == json.loads(json.dumps(found))
    assert found["figures"][0]["sd"] is None
    assert found["pairs"][0]["corrected"] is None


def test_amounts() -> None:
    assert amount("acc2_nn", -0.02) == "2.0 points of acc2_nn"
    assert amount("corr", 0.1234) == "0.123 of correlation"


@pytest.mark.parametrize(
    ("rows", "metric", "message"),
    [
        ([], None, "Found none"),
        (trainings("agm") * 2, None, "Found two of mosi, LateFusion, agm, seed 0"),
        (trainings("agm"), "acc7", "Found 'acc7'; 'agm', seed 0, has accuracy"),
        (trainings("agm"), {"mosi": "acc5"}, "Found 'acc5'"),
        (
            [*trainings("plain", role="plain"), *(replace(r, samples=("x", *r.samples[1:])) for r in trainings("b"))],
            None,
            "the same test samples for all runs on 'mosi'",
        ),
    ],
)
def test_refuses(rows: list[Row], metric: str | dict[str, str] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fast(rows, metric=metric)


def test_the_least_p_of_many_seeds_is_that_of_the_flips_drawn() -> None:
    rows = [*trainings("plain", role="plain", seeds=17), *trainings("agm", 0.5, seeds=17)]
    (pair,) = fast(rows).pairs
    assert pair.p_seeds >= pair.p_least == 1 / 100_001
    assert pair.p_seeds == pytest.approx(2.0**-16, abs=3e-5)  # 2 of 2^17 patterns are as extreme
