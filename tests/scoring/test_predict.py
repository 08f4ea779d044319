"""From files to scores: the same as from the dataset that was made of them, whatever else lies beside them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.features.clips import square, voice, write_clip
from tests.scoring.conftest import COUNT, WORDS, Chain

from equipoise.experiments.store import Store
from equipoise.scoring.predict import Request, file_work, score_file, score_files, score_text
from equipoise.scoring.result import ClipScore
from equipoise.scoring.score import Scorer
from equipoise.training.evaluate import predict
from equipoise.training.pretrained import from_pretrained, save_pretrained


@pytest.fixture(scope="module")
def scorer(chain: Chain) -> Scorer:
    return Scorer(chain.model)


def paths(chain: Chain) -> list[Path]:
    return sorted(chain.clips.glob("*.mp4"))


def test_a_clip_scores_as_its_row_of_the_dataset(chain: Chain, scorer: Scorer) -> None:
    said = predict(scorer.model, chain.dataset.split("test"))
    for path, value in zip(paths(chain)[8:], said.logits.tolist(), strict=True):
        (score,) = score_file(scorer, path, Request(level=0.5))
        assert score.error == ""
        assert score.values["score"] == pytest.approx(value, abs=1e-6)
        assert score.used == ("text", "audio", "vision")
        assert score.end == pytest.approx(0.6 + 0.1 * (int(path.stem[-2:]) % 3), abs=0.15)


@pytest.mark.parametrize("kept", [("audio",), ("text",), ("vision", "text")])
def test_some_modalities_alone(chain: Chain, scorer: Scorer, kept: tuple[str, ...]) -> None:
    said = predict(scorer.model, chain.dataset.split("test"), modalities=kept)
    for path, value in zip(paths(chain)[8:], said.logits.tolist(), strict=True):
        (score,) = score_file(scorer, path, Request(only=kept, level=0.5))
        assert score.values["score"] == pytest.approx(value, abs=1e-6)
        assert set(score.missing.values()) == {"left out"}
        assert set(score.used) == set(kept)


def test_what_is_not_used_is_not_extracted(scorer: Scorer) -> None:
    recipe = scorer.recipe(["text"])
    assert (recipe.audio, recipe.vision) == (None, None)
    assert scorer.recipe().vision is not None


def test_intervals_are_of_the_modalities_that_were_read(chain: Chain, scorer: Scorer) -> None:
    assert scorer.info.calibration is not None
    for kept, key in ((None, "audio+text+vision"), (("audio",), "audio")):
        (score,) = score_file(scorer, paths(chain)[0], Request(only=kept, level=0.5))
        ((error,), _) = scorer.info.calibration.subsets[key].quantiles
        assert error is not None
        assert score.interval is not None
        low, high = score.interval["score"]
        assert (low, high) == pytest.approx(
            (max(-3.0, score.values["score"] - error), min(3.0, score.values["score"] + error))
        )
    (unsure,) = score_file(scorer, paths(chain)[0], Request(level=0.9))
    assert unsure.interval is None
    assert "4 validation samples are too few for a level of 0.9" in unsure.notes[-1]


def test_what_a_clip_lacks(chain: Chain, scorer: Scorer, tmp_path: Path) -> None:
    write_clip(tmp_path / "sound.wav", audio=voice(0.6), audio_codec="pcm_s16le")
    (score,) = score_file(scorer, tmp_path / "sound.wav", Request(level=0.5))
    assert score.used == ("audio",)
    assert score.missing == {"vision": "no video track", "text": "no transcript"}
    write_clip(tmp_path / "mute.mp4", pictures=[square(i) for i in range(6)], frame_rate=10)
    (score,) = score_file(scorer, tmp_path / "mute.mp4", Request(text="a bad film", level=0.5))
    assert score.used == ("text", "vision")
    assert score.transcript is not None
    assert score.transcript.text == "a bad film"


def test_several_files_in_processes(chain: Chain, scorer: Scorer, tmp_path: Path) -> None:
    """As one by one, to the last bit; what is broken stops no other; and nothing is scored twice."""
    (tmp_path / "noise.mp4").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "nothing.mp4").write_bytes(b"")
    files = [tmp_path / "noise.mp4", *paths(chain), tmp_path / "nothing.mp4"]
    request = Request(only=("text", "audio"), level=0.5, words=True)
    store, told = Store(tmp_path / "store"), list[str]()
    found = score_files(chain.model, files, request, store, jobs=2, told=lambda work, what, _: told.append(what))
    assert told.count("done") == len(files) == len(found) == COUNT + 2
    for path, (score,) in zip(files, found, strict=True):
        assert score.id == str(path)
        assert [score] == score_file(scorer, path, request)
    for (score,) in (found[0], found[-1]):
        assert score.error
        assert "\n" not in score.error
        assert not score.values
    for path, (score,) in zip(paths(chain), found[1:], strict=False):
        assert score.words is not None
        assert " ".join(word.text for word in score.words) == WORDS[int(path.stem[-2:]) % 4]
    again: list[str] = []
    assert score_files(chain.model, files, request, store, told=lambda *a: again.append(a[1])) == found
    assert again == []


def test_a_file_that_brought_its_process_down(chain: Chain, tmp_path: Path) -> None:
    request, store, path = Request(), Store(tmp_path), paths(chain)[0]
    work = file_work(chain.model, path, request)
    store.put(work.id, {**work.record(), "error": "Its process died 3 times."}, failed=True)
    ((score,),) = score_files(chain.model, [path], request, store)
    assert score == ClipScore(str(path), error="Its process died 3 times.")


def test_a_timeline_is_the_scores_of_its_pieces(scorer: Scorer, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "long.mp4", audio=voice(4.3), pictures=[square(i) for i in range(43)], frame_rate=10)
    path.with_suffix(".srt").write_text(
        "1\n00:00:00,200 --> 00:00:00,900\na good film\n\n2\n00:00:03,000 --> 00:00:04,000\nvery bad\n"
    )
    scores = score_file(scorer, path, Request(window=1.0, hop=0.5, level=0.5))
    starts = [score.start for score in scores]
    assert starts[:7] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    assert scores[-1].end == pytest.approx(4.3, abs=0.1)
    assert all(score.error == "" for score in scores)
    assert scores[0].transcript is not None
    assert scores[0].transcript.text == "a good film"
    assert "text" in scores[2].missing
    from equipoise.extraction.clip_features import extract_clip

    piece = extract_clip(path, scorer.recipe(), start=2.5, end=3.5)
    assert scores[5].values == pytest.approx(scorer.score([piece], level=0.5)[0].values, abs=1e-6)


def test_text_alone(scorer: Scorer, chain: Chain) -> None:
    score = score_text(scorer, "  not very\ngood ", Request(level=0.5))
    said = predict(scorer.model, chain.dataset.split("test"), modalities=["text"])
    row = next(i for i in range(4) if WORDS[(8 + i) % 4] == "not very good")
    assert score.values["score"] == pytest.approx(said.logits[row].item(), abs=1e-6)
    assert score.interval is not None


def test_a_model_of_feature_files_refuses_clips(chain: Chain, tmp_path: Path) -> None:
    model, info = from_pretrained(chain.model)
    save_pretrained(model, tmp_path / "m", replace(info, extraction=None))
    with pytest.raises(ValueError, match="was trained on feature files"):
        score_file(Scorer(tmp_path / "m"), "x.mp4", Request())
    save_pretrained(model, tmp_path / "n", replace(info, extraction={"audio": None, "smell": {}}))
    with pytest.raises(ValueError, match=r"another equipoise's recipe for clips.*smell"):
        Scorer(tmp_path / "n").recipe()


def test_other_versions_of_libraries_are_refused(chain: Chain, tmp_path: Path) -> None:
    model, info = from_pretrained(chain.model)
    assert info.extraction is not None
    older = {**info.extraction, "decoder": {**info.extraction["decoder"], "pyav": "1.2.3"}}
    save_pretrained(model, tmp_path / "m", replace(info, extraction=older))
    (score,) = score_file(Scorer(tmp_path / "m"), paths(chain)[0], Request())
    assert "1.2.3" in score.error


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"hop": 1.0}, "`hop` needs `window`"),
        ({"text": "a", "window": 1.0}, "`text` is of a whole clip"),
        ({"window": 0.0}, "`window` should be seconds above 0"),
        ({"window": 1.0, "hop": -1.0}, "`hop` should be seconds above 0"),
    ],
)
def test_requests_that_make_no_sense(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Request(**given)  # type: ignore[arg-type]


def test_a_score_survives_json(scorer: Scorer, chain: Chain) -> None:
    import json

    (score,) = score_file(scorer, paths(chain)[1], Request(level=0.5, words=True))
    assert ClipScore.from_json(json.loads(json.dumps(score.to_json()))) == score
