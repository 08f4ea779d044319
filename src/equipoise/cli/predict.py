"""`equipoise predict`: a saved model scores clips."""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from equipoise.cli.console import add_json_flag, add_models_flag, print_json, print_table

if TYPE_CHECKING:
    from equipoise.scoring.predict import FileWork, Request
    from equipoise.scoring.result import ClipScore
    from equipoise.scoring.score import Scorer

EXAMPLES = """\
examples:
  equipoise predict models/mine interview.mp4
  equipoise predict models/mine clips/ --to scores.csv --jobs 4
  equipoise predict models/mine lecture.mp4 --window 10 --hop 5 --to timeline.json
  equipoise predict models/mine talk.mp4 --only audio text --words
  equipoise predict models/mine --text "I have seldom been so bored."

MODEL is what `equipoise export` saved of a run on a dataset that `equipoise extract` made.
Exit code 1: some clips have no score."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "predict",
        help="score clips with a saved model",
        epilog=EXAMPLES,
        description="Score clips: value or class, interval, what each modality added, and what was missing.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="a saved model, or one on the Hugging Face Hub")
    parser.add_argument("clips", nargs="*", metavar="CLIPS", help="files, and folders of clips")
    parser.add_argument("--only", nargs="+", metavar="MODALITY", help="use these alone: text, audio, vision")
    parser.add_argument("--text", metavar="WORDS", help="what is said, of a single clip or of none")
    parser.add_argument("--window", type=float, metavar="S", help="score pieces of so many seconds: a timeline")
    parser.add_argument("--hop", type=float, metavar="S", help="seconds from one piece to the next (the window)")
    parser.add_argument("--level", type=float, default=0.9, metavar="P", help="probability of intervals (0.9)")
    parser.add_argument("--words", action="store_true", help="also the weight of each word, for --json and .json")
    parser.add_argument("--to", metavar="FILE", help="also write the scores: .csv, .json or .parquet")
    add_models_flag(parser)
    parser.add_argument("--jobs", type=int, metavar="N", help="processes at once (one a core)")
    add_json_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Check, score, write, print. Returns 1 where a clip has no score."""
    from equipoise.scoring.files import check_file, to_json, write_scores
    from equipoise.scoring.find import find_clips
    from equipoise.scoring.intervals import check_level
    from equipoise.scoring.predict import Request, score_text
    from equipoise.scoring.score import Scorer
    from equipoise.training.pretrained import find_pretrained

    to = None if args.to is None else Path(args.to)
    if to is not None:
        check_file(to)
    if args.jobs is not None and args.jobs < 1:
        raise ValueError(f"Parameter `--jobs` should be 1 or more. Found {args.jobs}.")
    only = None if args.only is None else tuple(dict.fromkeys(args.only))
    request = Request(only, args.text, args.window, args.hop, args.level, args.words)
    paths = find_clips(args.clips)
    if not paths and args.text is None:
        raise ValueError("nothing to score: name clips, or give `--text`. See `equipoise predict --help`.")
    if len(paths) > 1 and args.text is not None:
        raise ValueError(f"Parameter `--text` is of a single clip. Found {len(paths)}: put texts beside them (.txt).")
    folder = find_pretrained(args.model)
    scorer = Scorer(folder)
    check_level(scorer.info, args.level)
    if unknown := sorted(set(only or ()) - set(scorer.info.modalities)):
        have = ", ".join(scorer.info.modalities)
        raise ValueError(f"Parameter `--only` should name modalities of the model, {have}. Found {', '.join(unknown)}.")
    if paths:
        scores = score_paths(scorer, folder, paths, request, to, args.jobs, args.models)
    else:
        scores = [score_text(scorer, args.text, request)]
    if to is not None:
        write_scores(to, scores, scorer.info, args.model)
        shutil.rmtree(partial_folder(to), ignore_errors=True)
    if args.json:
        print_json(to_json(scores, scorer.info, args.model))
    else:
        show(scores, scorer, args)
    return int(any(score.error for score in scores))


def score_paths(
    scorer: Scorer,
    folder: Path,
    paths: Sequence[Path],
    request: Request,
    to: Path | None,
    jobs: int | None,
    models: Sequence[str],
) -> list[ClipScore]:
    """The scores of files: a single one in this process, several in others."""
    from equipoise.experiments.store import Store
    from equipoise.extraction.clip_features import check_recipe
    from equipoise.scoring.predict import needed_recipe, score_file, score_files

    check_recipe(needed_recipe(scorer, paths, request), models)
    if len(paths) == 1:
        return score_file(scorer, paths[0], request, models=models)
    jobs = min(len(paths), jobs or len(os.sched_getaffinity(0)))
    with TemporaryDirectory() as temporary, predict_progress(len(paths)) as told:
        store = Store(temporary if to is None else partial_folder(to))
        found = score_files(folder, paths, request, store, jobs=jobs, models=models, told=told)
    return [score for scores in found for score in scores]


def partial_folder(to: Path) -> Path:
    """Where results are kept until all are there, for a command that is stopped and given again."""
    return to.with_name(f".{to.name}.partial")


def show(scores: Sequence[ClipScore], scorer: Scorer, args: argparse.Namespace) -> None:
    """Print the table, and the words of a single clip."""
    from equipoise.report.tables import Table
    from equipoise.scoring.rows import score_table

    print_table(score_table(scores, scorer.info, f"What {args.model} says"))
    for score in scores:
        if score.words:
            of = score.label or next(iter(score.values))
            rows = tuple((word.text, word.start, word.end, word.weights[of]) for word in score.words)
            print()
            print_table(Table(f"{score.id}: what each word adds to {of}", ("word", "from", "to", "weight"), rows))
    if args.to is not None:
        print(f"\nScores: {args.to}")


@contextmanager
def predict_progress(total: int) -> Iterator[Callable[[FileWork, str, float], None]]:
    """Show how many clips are done, and about how long the others take."""
    from equipoise.cli.extract_progress import said
    from equipoise.cli.progress import status

    begun, done, failed = time.monotonic(), 0, 0

    def line() -> str:
        spent = time.monotonic() - begun
        return said(done, total, 0, failed, spent / done * (total - done) if done else None)

    with status(total, lambda: done, line) as show:

        def told(work: FileWork, what: str, seconds: float) -> None:
            nonlocal done, failed
            done += what in ("done", "failed", "elsewhere")
            failed += what == "failed"
            show(done == total)

        yield told
