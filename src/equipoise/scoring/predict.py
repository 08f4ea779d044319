"""Clips to scores, from files: many side by side, and one that fails stops no other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from equipoise import __version__
from equipoise.experiments.pool import Told, run_cells
from equipoise.experiments.store import Store
from equipoise.extraction.clip_features import extract_clip
from equipoise.extraction.extracted import ExtractedClip
from equipoise.extraction.recipe import Recipe
from equipoise.features.clip import open_clip
from equipoise.features.local_models import model_places
from equipoise.features.sidecar import find_sidecar
from equipoise.features.transcript import Transcript
from equipoise.scoring.result import ClipScore
from equipoise.scoring.score import LEVEL, Scorer
from equipoise.scoring.timeline import windows

_TOGETHER = 16  # pieces of a timeline whose features are held at once


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of each clip.

    Attributes:
        only: the modalities to use; None for all.
        text: what is said; None to look beside the clip and to listen, as the model's recipe says.
        window, hop: seconds of each piece of a timeline, and from one to the next; None for the clip as a whole.
        level: of intervals.
        words: also the weight of each word.

    Raises:
        ValueError: a text for pieces of a timeline, of which nobody knows which words are theirs; ``hop`` alone.
    """

    only: tuple[str, ...] | None = None
    text: str | None = None
    window: float | None = None
    hop: float | None = None
    level: float = LEVEL
    words: bool = False

    def __post_init__(self) -> None:
        if self.hop is not None and self.window is None:
            raise ValueError("Parameter `hop` needs `window`, the length of a piece.")
        if self.text is not None and self.window is not None:
            raise ValueError(
                "Parameter `text` is of a whole clip, and `window` cuts it into pieces. Put the words with their times "
                "beside the clip (.srt)."
            )
        if self.window is not None:
            windows(0.0, self.window, self.hop)


@dataclass(frozen=True, slots=True)
class FileWork:
    """One file to be scored in any process.

    Attributes:
        id: a digest of the model, the file and the request.
        path: the file.
        model: folder of the saved model.
        request: what is asked, as JSON.
    """

    id: str
    path: str
    model: str
    request: dict[str, Any]

    def record(self) -> dict[str, Any]:
        """What stands beside the result."""
        return asdict(self)


def needed_recipe(scorer: Scorer, paths: Sequence[Path], request: Request) -> Recipe:
    """What scoring these files takes: no recogniser where all words are given or lie beside the clips.

    Raises:
        ValueError: the model can't read clips.
    """
    recipe = scorer.recipe(request.only)
    known = request.text is not None or all(find_sidecar(path) is not None for path in paths)
    return replace(recipe, speech=None) if known else recipe


def score_file(
    scorer: Scorer, path: str | Path, request: Request, *, models: Sequence[str | Path] = ()
) -> list[ClipScore]:
    """The score of a clip, or of each piece of its timeline; what fails is a score with an ``error``.

    Args:
        scorer: the model.
        path: the clip.
        request: what is asked.
        models: files and folders of the models that the recipe asks for, see `equipoise.features.local_models`.

    Raises:
        ValueError: the model can't read clips, or not with the libraries that are here.
    """
    recipe, id, asked = scorer.recipe(request.only), str(path), (request.only, request.level, request.words)

    def extracted(start: float, end: float | None) -> ExtractedClip | ClipScore:
        try:
            return extract_clip(path, recipe, start=start, end=end, text=request.text, id=id, models=models)
        except (ValueError, OSError, MemoryError) as error:
            return _failed(id, error, start, end)

    try:
        whole = open_clip(path)
        pieces = [(0.0, None)] if request.window is None else windows(whole.duration, request.window, request.hop)
    except (ValueError, OSError) as error:
        return [_failed(id, error)]
    scores: list[ClipScore] = []
    for first in range(0, len(pieces), _TOGETHER):
        some = pieces[first : first + _TOGETHER]
        found = [extracted(start, end) for start, end in some]
        clips = [each for each in found if isinstance(each, ExtractedClip)]
        said = iter(_score(scorer, clips, *asked))
        for each, (start, _) in zip(found, some, strict=True):
            if isinstance(each, ClipScore):
                scores.append(each)
            else:
                scores.append(replace(next(said), start=start, end=start + each.duration))
    return scores


def score_text(scorer: Scorer, text: str, request: Request) -> ClipScore:
    """The score of a text without a clip.

    Raises:
        ValueError: the model reads no transcripts.
    """
    if scorer.info.text is None:
        raise ValueError(f"{scorer.name} reads no text of its own: give a clip.")
    clip = ExtractedClip("text", {}, Transcript(" ".join(text.split()), origin="given"), 0.0)
    return scorer.score([clip], only=request.only, level=request.level, words=request.words)[0]


def score_files(
    model: str | Path,
    paths: Sequence[Path],
    request: Request,
    store: Store,
    *,
    jobs: int = 1,
    models: Sequence[str | Path] = (),
    told: Told[FileWork] | None = None,
) -> list[list[ClipScore]]:
    """The scores of many files in processes of their own, in the order of ``paths``.

    A file that brings a process down has an error in the place of its score. What was scored before, by the same model
    and for the same request, is taken from the store.

    Args:
        model: folder of the saved model.
        paths: files, each once.
        request: what is asked of each.
        store: where results are kept.
        jobs: processes at once.
        models: as in `score_file`.
        told: hears of every file.

    Raises:
        OSError: a file is gone, or a result can't be written.
    """
    work = [file_work(model, path, request) for path in paths]
    run_cells(work, partial(_run, models=model_places(models)), store, jobs=jobs, told=told)
    return [_read(store, each) for each in work]


def file_work(model: str | Path, path: Path, request: Request) -> FileWork:
    """The work on one file; what would change its scores changes its id.

    Raises:
        OSError: there is no such file, or no such model.
    """
    folder = Path(model).resolve()
    beside = find_sidecar(path)
    decides = {
        "code": __version__,
        "model": _stamp(folder / "config.json"),
        "clip": [str(path), _stamp(path), None if beside is None else _stamp(beside)],
        "request": asdict(request),
    }
    id = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:24]
    return FileWork(id, str(path), str(folder), asdict(request))


def _stamp(path: Path) -> list[Any]:
    about = path.stat()
    return [str(path.resolve()), about.st_size, about.st_mtime_ns]


def _run(work: FileWork, *, models: Sequence[str]) -> dict[str, Any]:
    import torch

    torch.set_num_threads(1)  # the processes share the cores
    found = score_file(_scorer(work.model), work.path, Request(**work.request), models=models)
    return {"scores": [score.to_json() for score in found]}


def _read(store: Store, work: FileWork) -> list[ClipScore]:
    record = store.read(work.id)
    if "result" not in record:
        return [ClipScore(work.path, error=str(record["error"]))]
    return [ClipScore.from_json(each) for each in record["result"]["scores"]]


@lru_cache(maxsize=1)
def _scorer(model: str) -> Scorer:
    return Scorer(model)


def _score(
    scorer: Scorer, clips: Sequence[ExtractedClip], only: tuple[str, ...] | None, level: float, words: bool
) -> list[ClipScore]:
    return scorer.score(clips, only=only, level=level, words=words) if clips else []


def _failed(id: str, error: Exception, start: float = 0.0, end: float | None = None) -> ClipScore:
    reason = " ".join(str(error).split()) or type(error).__name__
    return ClipScore(id, start, start if end is None else end, error=reason)
