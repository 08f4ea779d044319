from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from equipoise.core import Batch
from equipoise.data import Dataset, Split, synthetic
from equipoise.data.corruption import add_noise, drop_frames, drop_modalities, drop_parts, kept_modalities
from equipoise.data.draws import _mixed, uniforms

NAMES = ("text", "audio", "vision")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return synthetic(tmp_path_factory.mktemp("data") / "small", n=200, seed=1)


@pytest.fixture(scope="module")
def split(dataset: Dataset) -> Split:
    return dataset.split("train")


def tokens(batch: Batch) -> Batch:
    """The same with ids 7 for text, between 101 and 102."""
    mask = batch.masks["text"]
    ids = torch.full(mask.shape, 7) * mask
    ids[:, 0] = 101
    ids[torch.arange(len(ids)), mask.sum(dim=1) - 1] = 102
    return Batch({**batch.inputs, "text": ids}, batch.masks, batch.target, batch.index)


def present(rows: int, names: tuple[str, ...] = NAMES) -> dict[str, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    return {name: np.ones(rows, dtype=np.bool_) for name in names}


def test_the_generator_is_the_published_one() -> None:
    # First outputs of SplitMix64 from the state 0, as its reference implementation prints them.
    golden = np.uint64(0x9E3779B97F4A7C15)
    states = np.arange(1, 4, dtype=np.uint64) * golden
    assert [hex(x) for x in _mixed(states)] == ["0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4", "0x6c45d188009454f"]


def test_draws_are_even_and_independent() -> None:
    drawn = uniforms(np.arange(4000), 25, 0, 3, "frame", "text")
    assert stats.kstest(drawn.ravel(), "uniform").pvalue > 0.01
    correlations = np.asarray(np.corrcoef(drawn, rowvar=False))[np.triu_indices(25, 1)]
    assert np.abs(correlations).max() < 0.075  # 4.7 standard errors
    assert abs(np.corrcoef(drawn[:-1, 0], drawn[1:, 0])[0, 1]) < 0.05
    others = [
        uniforms(np.arange(4000), 1, *words)[:, 0] for words in [(0, 4, "frame", "text"), (1, 3, "frame", "text")]
    ]
    assert all(abs(np.corrcoef(drawn[:, 0], other)[0, 1]) < 0.05 for other in others)


def test_a_draw_belongs_to_its_row_and_column() -> None:
    whole = uniforms(np.arange(50), 9, 0, 0, "x")
    part = uniforms(np.array([31, 4]), 3, 0, 0, "x")
    assert np.array_equal(part, whole[[31, 4], :3])


@given(
    rates=st.fixed_dictionaries(dict.fromkeys(NAMES, st.floats(0, 1))),
    has=st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=40),
    seed=st.integers(0, 2**64 - 1),
)
def test_a_sample_keeps_something_of_what_it_has(
    rates: dict[str, float], has: list[tuple[bool, bool, bool]], seed: int
) -> None:
    there = dict(zip(NAMES, np.array(has).T, strict=True))
    kept = kept_modalities(np.arange(len(has)), there, rates, seed=seed, draw=0)
    assert not any((kept[name] & ~there[name]).any() for name in NAMES)
    before, after = (np.stack([each[name] for name in NAMES]).any(axis=0) for each in (there, kept))
    assert np.array_equal(before, after)
    for name in NAMES:
        if rates[name] == 0:
            assert np.array_equal(kept[name], there[name])


def test_a_modality_goes_at_its_rate_whatever_the_others_rates_are() -> None:
    rows = np.arange(6000)
    kept = [
        kept_modalities(rows, present(6000), {"text": 0.3, "audio": audio}, seed=2, draw=5) for audio in (0.0, 0.4, 0.9)
    ]
    assert all(np.array_equal(each["text"], kept[0]["text"]) for each in kept)  # vision stays, so nothing is spared
    assert kept[0]["text"].mean() == pytest.approx(0.7, abs=0.02)
    assert kept[2]["audio"].mean() == pytest.approx(0.1, abs=0.02)
    assert kept[0]["audio"].all()
    joint = (~kept[1]["text"] & ~kept[1]["audio"]).mean()
    assert joint == pytest.approx(0.3 * 0.4, abs=0.015)


def test_what_is_gone_at_a_low_rate_is_gone_at_a_higher_one() -> None:
    rows = np.arange(500)
    levels = [kept_modalities(rows, present(500), {"text": rate}, seed=0, draw=0)["text"] for rate in (0.2, 0.5, 1.0)]
    assert not (levels[1] & ~levels[0]).any()
    assert not levels[2].any()


def test_at_rate_one_each_modality_is_the_last_equally_often() -> None:
    kept = kept_modalities(np.arange(6000), present(6000), dict.fromkeys(NAMES, 1.0), seed=0, draw=0)
    shares = [kept[name].mean() for name in NAMES]
    assert sum(shares) == pytest.approx(1.0)
    assert shares == pytest.approx([1 / 3] * 3, abs=0.02)


def test_batches_do_not_matter(split: Split) -> None:
    rates = {"text": 0.4, "audio": 0.5}
    whole = drop_parts(split.batch(range(40)), rates, {"text": 0.5, "vision": 0.6}, seed=3, draw=2)
    noisy = add_noise(split.batch(range(40)), 0.5, {"text": np.ones(32)}, seed=3, draw=2)
    for positions in ([5], [39, 0, 17]):
        part = drop_parts(split.batch(positions), rates, {"text": 0.5, "vision": 0.6}, seed=3, draw=2)
        for name, mask in part.masks.items():
            assert torch.equal(mask, whole.masks[name][positions, : mask.shape[1]])
            assert torch.equal(part.inputs[name], whole.inputs[name][positions, : mask.shape[1]])
        values = add_noise(split.batch(positions), 0.5, {"text": np.ones(32)}, seed=3, draw=2).inputs["text"]
        assert torch.equal(values, noisy.inputs["text"][positions, : values.shape[1]])


def test_the_draw_and_the_seed_matter(split: Split) -> None:
    batch = split.batch(range(60))
    found = [
        drop_modalities(batch, {"text": 0.5}, seed=seed, draw=draw).masks["text"].any(dim=1)
        for seed, draw in [(0, 0), (0, 1), (1, 0)]
    ]
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_what_is_dropped_is_zero_and_masked_and_the_rest_untouched(split: Split) -> None:
    batch = split.batch(range(60))
    found = drop_modalities(batch, {"text": 0.5}, seed=0, draw=0)
    gone = ~found.masks["text"].any(dim=1)
    assert 15 < int(gone.sum()) < 45
    assert not bool(found.inputs["text"][gone].any())
    assert torch.equal(found.inputs["text"][~gone], batch.inputs["text"][~gone])
    assert all(found.inputs[name] is batch.inputs[name] for name in ("audio", "vision"))
    assert torch.equal(found.target, batch.target)
    assert torch.equal(found.index, batch.index)


def test_no_rate_is_no_change(split: Split) -> None:
    batch = split.batch(range(4))
    assert drop_parts(batch, {"text": 0.0}, {"text": 0.0}, seed=0, draw=0) is batch
    assert torch.equal(
        add_noise(batch, 0.0, {"text": np.ones(32)}, seed=0, draw=0).inputs["text"], batch.inputs["text"]
    )


@pytest.mark.parametrize("rate", [0.3, 0.9, 1.0])
def test_frames_go_at_their_rate_and_one_stays(split: Split, rate: float) -> None:
    batch = drop_modalities(split.batch(range(100)), {"audio": 0.5}, seed=0, draw=0)
    found = drop_frames(batch, {"audio": rate}, seed=0, draw=0)
    had, left = batch.masks["audio"].sum(dim=1), found.masks["audio"].sum(dim=1)
    assert torch.equal(left > 0, had > 0)  # a modality that is gone stays gone, and no other goes
    assert not bool((found.masks["audio"] & ~batch.masks["audio"]).any())
    assert float(left.sum() / had.sum()) == pytest.approx(1 - rate, abs=0.04)
    assert not bool(found.inputs["audio"][~found.masks["audio"]].any())
    assert torch.equal(found.inputs["audio"][found.masks["audio"]], batch.inputs["audio"][found.masks["audio"]])
    if rate == 1:
        assert bool((left[had > 0] == 1).all())


@pytest.mark.parametrize("rate", [0.5, 1.0])
def test_special_tokens_stay(split: Split, rate: float) -> None:
    batch = tokens(split.batch(range(50)))
    found = drop_frames(batch, {"text": rate}, seed=0, draw=0)
    ids, mask = found.inputs["text"], found.masks["text"]
    for special in (101, 102):
        assert torch.equal((ids == special) & mask, batch.inputs["text"] == special)
    words = int((batch.inputs["text"] == 7).sum())
    assert int((ids == 7).sum()) == pytest.approx(words * (1 - rate), abs=0.08 * words)
    empty = drop_modalities(batch, {"text": 1.0}, seed=0, draw=0)
    assert not bool(drop_frames(empty, {"text": rate}, seed=0, draw=0).masks["text"].any())


def test_noise_has_the_deviation_asked_for_and_grows_along_one_draw(split: Split) -> None:
    batch = split.batch(range(100))
    deviation = np.linspace(0.0, 3.0, 16)
    found = {s: add_noise(batch, s, {"audio": deviation}, seed=0, draw=1).inputs["audio"] for s in (0.5, 1.0)}
    added = (found[1.0] - batch.inputs["audio"])[batch.masks["audio"]]
    assert not bool(added[:, 0].any())  # a feature that never changes in training stays as it is
    assert added.std(dim=0).numpy() == pytest.approx(deviation, rel=0.06)
    assert stats.kstest((added[:, 1:] / torch.tensor(deviation[1:])).ravel().numpy(), "norm").pvalue > 0.01
    half = (found[0.5] - batch.inputs["audio"])[batch.masks["audio"]]
    torch.testing.assert_close(half, added / 2, atol=1e-5, rtol=1e-4)
    assert not bool(found[1.0][~batch.masks["audio"]].any())


def test_token_ids_take_no_noise(split: Split) -> None:
    with pytest.raises(ValueError, match="'text' holds token ids, which take no noise"):
        add_noise(tokens(split.batch(range(3))), 1.0, {"text": np.ones(1)}, seed=0, draw=0)


def test_masked_frames_hold_no_value_that_could_leak() -> None:
    batch = Batch(
        {"text": torch.full((2, 3, 1), float("nan")), "audio": torch.ones(2, 1, 1)},
        {"text": torch.ones(2, 3, dtype=torch.bool), "audio": torch.ones(2, 1, dtype=torch.bool)},
        torch.zeros(2),
        torch.arange(2),
    )
    assert not bool(drop_modalities(batch, {"text": 1.0}, seed=0, draw=0).inputs["text"].any())
