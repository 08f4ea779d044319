"""What extraction costs: seconds of compute a second of video, stage by stage, then whole datasets by processes.

    python -m benchmarks.extract [CLIP ...] [--seconds 30] [--copies 8] [--jobs 1 2] [--rounds 3] [--speech]

The clip is made of the clips given (of the GRID corpus by default, ../shared/data/clips: 360 x 288, 25 pictures a
second, 44.1 kHz), repeated one after the other to the length asked for and written as H.264 with AAC; what is measured
is the reading of that file. Every stage is run alone on the whole clip in one thread: CPU seconds of the process,
the best of the rounds, over the clip's seconds. ``log-mel``, ``mfcc``, ``egemaps`` and ``face-boxes`` decode for
themselves, so ``audio`` and ``pictures`` are a part of them. ``all`` is `extract_clip` by the default recipe with a
transcript beside it. Extractors whose extra is not installed are left out and named.

Then a dataset of ``copies`` such clips, cut to a third, by one process and by more: wall seconds, of which the start
of the processes is a part, the seconds of video extracted in a second, and the CPU seconds that workers spent on clips,
which tells on a busy machine whether processes hinder each other.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import av
import torch

from equipoise.experiments.store import Store
from equipoise.extraction.choose import choose_recipe
from equipoise.extraction.clip_features import extract_clip
from equipoise.extraction.dataset import extract_dataset
from equipoise.extraction.labels import read_labels
from equipoise.features.clip import Clip, open_clip
from equipoise.features.extractors import EXTRACTORS, make_extractor
from equipoise.features.speech import make_recogniser

CLIPS = Path(__file__).resolve().parents[2] / "shared" / "data" / "clips"
PICTURES = 25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="*", type=Path, default=sorted(CLIPS.glob("*.mpg")))
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--copies", type=int, default=8)
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--speech", action="store_true", help="also PocketSphinx")
    args = parser.parse_args()
    if not args.clips:
        parser.error(f"no clip given, and none in {CLIPS}")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        clip = open_clip(join(args.clips, folder / "clip.mp4", args.seconds))
        clip.path.with_suffix(".txt").write_text("somebody says something about it " * 10)
        video = clip.facts["video"]
        print(f"{clip.duration:.1f} s, {video['width']} x {video['height']}, {video['codec']}\n", flush=True)
        stages(clip, args.rounds, speech=args.speech)
        print(flush=True)
        datasets(clip.path, folder, args.copies, args.jobs)


def join(clips: Sequence[Path], path: Path, seconds: float) -> Path:
    """The clips one after the other, again and again."""
    with av.open(str(path), "w") as file:
        video: Any = file.add_stream("libx264", rate=PICTURES, options={"preset": "veryfast"})
        audio: Any = file.add_stream("aac", rate=44100, layout="mono")
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=44100, frame_size=1024)
        pictures = samples = 0
        video.pix_fmt = "yuv420p"
        for frame in frames(clips):
            if min(pictures / PICTURES, samples / 44100) >= seconds:
                break
            if isinstance(frame, av.VideoFrame):
                if pictures >= seconds * PICTURES:
                    continue
                if not pictures:
                    video.width, video.height = frame.width, frame.height
                plain = av.VideoFrame.from_ndarray(frame.to_ndarray(format="rgb24"), format="rgb24")
                plain.time_base, plain.pts, pictures = Fraction(1, PICTURES), pictures, pictures + 1
                file.mux(video.encode(plain))
            else:
                frame.pts = None
                for part in resampler.resample(frame):
                    if samples < seconds * 44100:
                        part.time_base, part.pts, samples = Fraction(1, 44100), samples, samples + part.samples
                        file.mux(audio.encode(part))
        for stream in (video, audio):
            file.mux(stream.encode(None))
    return path


def frames(clips: Sequence[Path]) -> Iterator[Any]:
    for clip in cycle(clips):
        with av.open(str(clip)) as file:
            yield from file.decode(file.streams.video[0], file.streams.audio[0])


def stages(clip: Clip, rounds: int, *, speech: bool) -> None:
    recipe = choose_recipe()
    work: dict[str, Callable[[], object]] = {
        "audio": lambda: sum(len(block.samples) for block in clip.audio()),
        "pictures": lambda: sum(1 for _ in clip.pictures(PICTURES, longest_side=320)),
    }
    for name in EXTRACTORS:
        try:
            work[name] = partial(make_extractor(name).extract, clip)
        except ModuleNotFoundError as error:
            print(f"{name} is left out: {error}")
    if speech:
        recogniser = make_recogniser("pocketsphinx")
        work["pocketsphinx"] = lambda: recogniser.transcribe(clip)
    work["all"] = lambda: extract_clip(clip.path, recipe)
    print(f"{'stage':<14}{'CPU s a second':>16}{'times real time':>17}")
    for name, run in work.items():
        taken = min(cpu_seconds(run) for _ in range(rounds)) / clip.duration
        print(f"{name:<14}{taken:16.4f}{1 / taken:17.1f}", flush=True)


def cpu_seconds(run: Callable[[], object]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


def datasets(clip: Path, folder: Path, copies: int, jobs: Sequence[int]) -> None:
    third = open_clip(clip).duration / 3
    clips = folder / "clips"
    clips.mkdir()
    rows = ["file,label,split,end,text"]
    for number in range(copies):
        (clips / f"{number}.mp4").write_bytes(clip.read_bytes() + bytes([number]))  # another content, the same clip
        rows.append(f"{number}.mp4,{number}.5,train,{third:.2f},said")
    (folder / "labels.csv").write_text("\n".join(rows))
    labels, recipe = read_labels(folder / "labels.csv", clips), choose_recipe()
    print(f"{'processes':>9}{'wall s':>9}{'video s a second':>18}{'CPU s':>10}")
    for number in jobs:
        out, started = folder / f"data-{number}", time.perf_counter()
        extract_dataset(labels, out, recipe, jobs=number)
        wall, store = time.perf_counter() - started, Store(f"{out}.clips")
        spent = sum(float(store.read(id)["result"]["cpu_seconds"]) for id in store.ids())
        print(f"{number:9d}{wall:9.1f}{copies * third / wall:18.2f}{spent:10.1f}", flush=True)
    contents = {(folder / f"data-{number}" / "vision.npy").read_bytes() for number in jobs}
    assert len(contents) == 1, "other features with other numbers of processes"


if __name__ == "__main__":
    main()
