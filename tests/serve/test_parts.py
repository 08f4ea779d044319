"""Rates, batches, remembered jobs, scratch folders, pieces: each alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from equipoise.extraction.extracted import ExtractedClip
from equipoise.features.stream import FeatureStream, no_frames
from equipoise.features.transcript import Transcript, Word
from equipoise.serve.batches import Batches
from equipoise.serve.jobs import Job, Jobs, Options, Problem
from equipoise.serve.limits import Limits
from equipoise.serve.pieces import cut_clip
from equipoise.serve.rates import Rates
from equipoise.serve.scratch import Scratch


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_address_has_as_many_permissions_as_fit_and_gets_them_back_evenly() -> None:
    clock = Clock()
    rates = Rates(6, clock)
    assert [rates.take("10.0.0.1") for _ in range(6)] == [0] * 6
    assert rates.take("10.0.0.1") == pytest.approx(10)  # 6 a minute: one every 10 s
    assert rates.take("10.0.0.2") == 0
    clock.now = 9.9
    assert rates.take("10.0.0.1") == pytest.approx(0.1)
    clock.now = 10.0
    assert rates.take("10.0.0.1") == 0
    clock.now = 10_000.0
    assert [rates.take("10.0.0.1") > 0 for _ in range(7)] == [False] * 6 + [True]


def test_addresses_of_one_customer_count_together() -> None:
    rates = Rates(1, Clock())
    assert rates.take("2001:db8::1") == 0
    assert rates.take("2001:db8::2") > 0
    assert rates.take("2001:db8:0:1::1") == 0
    assert all(Rates(0).take("x") == 0 for _ in range(100))


def test_addresses_are_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("equipoise.serve.rates._MOST", 3)
    clock = Clock()
    rates = Rates(1, clock)
    assert [rates.take(f"10.0.0.{i}") > 0 for i in range(5)] == [False, False, False, True, True]
    clock.now = 60.0
    assert rates.take("10.0.0.9") == 0
    assert len(rates._buckets) == 1


def test_what_comes_meanwhile_is_answered_together() -> None:
    calls: list[int] = []
    free = threading.Event()

    def answer(items: Sequence[int]) -> list[int]:
        calls.append(len(items))
        free.wait(10)
        return [item * item for item in items]

    async def ask() -> list[int]:
        batches: Batches[int, int] = Batches(answer, most=8)
        work = asyncio.create_task(batches.run())
        first = asyncio.create_task(batches(1))
        while not calls:
            await asyncio.sleep(0.005)
        others = [asyncio.create_task(batches(i)) for i in range(2, 12)]
        await asyncio.sleep(0.02)
        free.set()
        found = await asyncio.gather(first, *others)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        return found

    assert asyncio.run(ask()) == [i * i for i in range(1, 12)]
    assert calls == [1, 8, 2]


def test_one_that_fails_does_not_fail_the_others() -> None:
    def answer(items: Sequence[int]) -> list[float]:
        return [1 / item for item in items]

    async def ask() -> list[float | BaseException]:
        batches: Batches[int, float] = Batches(answer, most=8)
        work = asyncio.create_task(batches.run())
        found = await asyncio.gather(*(batches(i) for i in (1, 0, 2)), return_exceptions=True)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        return found

    one, none, half = asyncio.run(ask())
    assert (one, half) == (1, 0.5)
    assert isinstance(none, ZeroDivisionError)


def test_finished_jobs_are_forgotten_the_oldest_first() -> None:
    clock = Clock()
    jobs = Jobs(2, 100, clock)
    made = [Job(str(i), Options()) for i in range(3)]
    for job in made:
        jobs.add(job)
    assert len(jobs) == 3
    for i, job in enumerate(made):
        clock.now = float(i)
        job.end(Problem("media", "no", 422))
        jobs.settle(job)
    assert [jobs.get(job.id) is job for job in made] == [False, True, True]
    clock.now = 101.5
    assert [jobs.get(job.id) is job for job in made] == [False, False, True]
    assert jobs.drop(made[2].id)
    assert not jobs.drop(made[2].id)
    assert len(jobs) == 0
    assert len({job.id for job in made}) == 3


def test_a_folder_that_a_killed_server_left_is_cleared_and_a_live_one_stays(tmp_path: Path) -> None:
    live = Scratch(tmp_path)
    kept = live.folder() / "clip"
    kept.write_bytes(b"x")
    left = tmp_path / "equipoise-serve-dead"
    (left / "a").mkdir(parents=True)
    (left / "lock").touch()
    other = tmp_path / "equipoise-serve-of-somebody"
    other.mkdir()  # nothing in it says that it is ours
    new = Scratch(tmp_path)
    assert kept.exists()
    assert not left.exists()
    assert other.exists()
    assert new.root.stat().st_mode & 0o777 == 0o700
    for scratch in (live, new):
        scratch.close()
    assert list(tmp_path.iterdir()) == [other]


def piece_source(words: bool) -> ExtractedClip:
    times = np.array([0.25, 0.75, 1.25, 1.75])
    audio = FeatureStream(np.arange(8, dtype=np.float32).reshape(4, 2), times, 2.0)
    said = (Word("one", 0.0, 0.4), Word("two", 0.8, 1.4), Word("three", 1.5, 2.0)) if words else None
    streams = {"audio": audio, "vision": no_frames(3, "no face")}
    return ExtractedClip("a", streams, Transcript("one two three", said, "sidecar"), 2.0)


def test_a_piece_has_the_frames_and_words_whose_middle_lies_in_it() -> None:
    piece = cut_clip(piece_source(words=True), 1.0, 2.0)
    np.testing.assert_array_equal(piece.streams["audio"].values, [[4, 5], [6, 7]])
    np.testing.assert_allclose(piece.streams["audio"].times, [0.25, 0.75])
    assert piece.streams["vision"].absent == "no face"
    assert piece.transcript is not None
    assert piece.transcript.text == "two three"
    assert piece.transcript.words is not None
    assert piece.transcript.words[0].start == pytest.approx(-0.2)
    assert piece.duration == 1.0


def test_pieces_side_by_side_hold_every_frame_and_word_once() -> None:
    whole = piece_source(words=True)
    pieces = [cut_clip(whole, start, start + 0.5) for start in (0.0, 0.5, 1.0, 1.5)]
    values = np.concatenate([piece.streams["audio"].values for piece in pieces])
    np.testing.assert_array_equal(values, whole.streams["audio"].values)
    assert " ".join(piece.transcript.text for piece in pieces if piece.transcript) == "one two three"


def test_without_times_no_piece_claims_the_words_and_an_empty_one_says_so() -> None:
    whole = piece_source(words=False)
    assert cut_clip(whole, 0.0, 1.0).transcript is None
    assert cut_clip(whole, 0.0, 2.0).transcript == whole.transcript
    assert cut_clip(whole, 0.3, 0.7).streams["audio"].absent == "nothing in this piece"


def test_limits_name_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"Parameter `workers` should be 1 or more\. Found `workers = 0`"):
        Limits(workers=0)
    assert Limits(rate=0).upload_bytes == 200 * 2**20
