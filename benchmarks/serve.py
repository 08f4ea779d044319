"""What a server of clips does: one ten-second clip when it is warm, then many uploads at once.

    python -m benchmarks.serve [CLIP ...] [--seconds 10] [--rounds 5] [--uploads 50] [--queues 64 8] [--workers 2]

`equipoise serve` runs as a process of its own on loopback, with a rate without bound, and serves a late fusion of a
BERT-base with random weights, the log-mel spectrum and the face descriptors: sizes as in use, scores without meaning.
The long clip is made of the clips given (of the GRID corpus by default, ../shared/data/clips), as in
`benchmarks.extract`: H.264 with AAC. Its request asks for what the page asks for: the transcript's weights by word and
a timeline. Times are of the wall clock: ``request`` is the client's, from connecting to the whole answer, the stages
are what the server tells. ``CPU`` is the processor time of all the server's processes for that request, which other
work on the machine hits little.

Then ``uploads`` clients send the first clip at the same moment, once for every length of the queue. A client that is
told 429 or 503 waits as long as ``Retry-After`` says and sends again; its time runs from the first attempt. Every
upload has to end with the very score that the clip has alone. ``memory`` is the proportional set size (PSS) of the
server and of all its processes, read five times a second: idle, and at the highest.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx
import torch
from benchmarks.extract import CLIPS, join
from transformers import BertConfig, BertModel, BertTokenizer

from equipoise.data.manifest import LabelInfo, ModalityInfo
from equipoise.extraction.choose import choose_recipe
from equipoise.extraction.clip_features import columns_of
from equipoise.layers import TextEncoder, weights_sha256
from equipoise.models import LateFusion
from equipoise.training.model_info import ModelInfo, TextInfo
from equipoise.training.pretrained import save_pretrained

TEXT = "we had been told that it would rain all day and yet nobody took a coat along when we left"
PAGE = {"text": TEXT, "words": "true", "window": "2", "hop": "1"}
STAGES = ("waiting", "decoding", "scoring", "whole")


@dataclass
class Server:
    """A server that answers, and what its processes hold."""

    address: str
    pid: int
    scratch: Path
    peak: float = 0.0
    over: threading.Event = field(default_factory=threading.Event)

    def memory(self) -> float:
        """MiB of it and all that it has started."""
        return sum(map(held, family(self.pid))) / 1024

    def cpu(self) -> float:
        """Seconds of processor time that it, its processes and those that have ended took."""
        return sum(spent(pid) for pid in family(self.pid))

    def watch(self) -> None:
        while not self.over.wait(0.2):
            self.peak = max(self.peak, self.memory())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="*", type=Path, default=sorted(CLIPS.glob("*.mpg")))
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--uploads", type=int, default=50)
    parser.add_argument("--queues", type=int, nargs="*", default=[64, 8])
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    if not args.clips:
        parser.error(f"no clip given, and none in {CLIPS}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model, clip = save_model(folder), join(args.clips, folder / "clip.mp4", args.seconds)
        print(f"one clip of {args.seconds:g} s, {clip.stat().st_size / 1e6:.1f} MB, warm, {args.rounds} times")
        with server(model, folder, args.workers, 64) as started:
            alone(started, clip, args.rounds)
        for queue in args.queues:
            with server(model, folder, args.workers, queue) as started:
                together(started, args.clips[0], args.uploads, queue)


def alone(server: Server, clip: Path, rounds: int) -> None:
    with httpx.Client(base_url=server.address, timeout=120) as client:
        found = [timed(server, client, clip) for _ in range(rounds + 1)][1:]
    print(f"{'stage':<10}{'median s':>10}{'worst s':>10}")
    for stage in ("request", *STAGES, "CPU"):
        taken = [seconds[stage] for seconds in found]
        print(f"{stage:<10}{median(taken):10.2f}{max(taken):10.2f}", flush=True)


def timed(server: Server, client: httpx.Client, clip: Path) -> dict[str, float]:
    spent, started = server.cpu(), time.perf_counter()
    answer = send(client, clip, PAGE)
    taken, spent = time.perf_counter() - started, server.cpu() - spent
    value(answer.json())
    return {"request": taken, **answer.json()["seconds"], "CPU": spent}


def together(server: Server, clip: Path, uploads: int, queue: int) -> None:
    with httpx.Client(base_url=server.address, timeout=120) as client:
        expected = value(send(client, clip, {"text": TEXT}).json())
    idle = server.memory()
    watching = threading.Thread(target=server.watch)
    watching.start()
    gate, started = threading.Barrier(uploads), time.perf_counter()
    with ThreadPoolExecutor(uploads) as clients:
        found = list(clients.map(lambda _: insist(server.address, clip, gate), range(uploads)))
    wall = time.perf_counter() - started
    server.over.set()
    watching.join()
    taken = [seconds for seconds, _, _ in found]
    told = sum((statuses for _, statuses, _ in found), Counter[int]())
    wrong = [score for _, _, score in found if abs(score - expected) > 1e-5]
    left = [path for path in server.scratch.rglob("*") if path.is_file() and path.name != "lock"]
    print(
        f"\n{uploads} uploads at once of {clip.name}, a queue of {queue}: {len(found) - len(wrong)} scored as alone in "
        f"{wall:.1f} s\nanswers {dict(told)}; seconds to the score: median {median(taken):.1f}, p95 "
        f"{quantiles(taken, n=20, method='inclusive')[-1]:.1f}, worst {max(taken):.1f}\nmemory {idle:.0f} MiB idle, "
        f"{server.peak:.0f} MiB at the highest; files left: {len(left)}",
        flush=True,
    )
    assert not wrong, f"other scores than alone: {wrong}, not {expected}"
    assert not left, left


def insist(address: str, clip: Path, gate: threading.Barrier) -> tuple[float, Counter[int], float]:
    """Send until it is taken, then ask until it is scored: seconds, statuses of the upload, the score."""
    told: Counter[int] = Counter()
    with httpx.Client(base_url=address, timeout=120) as client:
        gate.wait()
        started = time.perf_counter()
        while True:
            answer = send(client, clip, {"text": TEXT})
            told[answer.status_code] += 1
            if answer.status_code not in (429, 503):
                break
            time.sleep(float(answer.headers["Retry-After"]))
        while answer.raise_for_status().json()["status"] not in ("done", "failed"):
            answer = client.get(f"/api/clips/{answer.json()['id']}?wait=60")
    return time.perf_counter() - started, told, value(answer.json())


def send(client: httpx.Client, clip: Path, fields: dict[str, str]) -> httpx.Response:
    return client.post("/api/clips?wait=60", data=fields, files={"clip": (clip.name, clip.read_bytes())})


def value(answer: dict[str, Any]) -> float:
    assert answer["score"], answer
    assert set(answer["score"]["contributions"]) == {"text", "audio", "vision"}, answer["score"]["missing"]
    return float(answer["score"]["values"]["score"])


@contextmanager
def server(model: Path, folder: Path, workers: int, queue: int) -> Iterator[Server]:
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    limits = ["--rate", "0", "--workers", str(workers), "--queue", str(queue)]
    command = [
        sys.executable,
        "-m",
        "equipoise",
        "serve",
        str(model),
        "--port",
        "0",
        "--scratch",
        str(scratch),
        *limits,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+", process.stdout.readline())
            assert found is not None, "the server did not start"
            yield Server(found[0], process.pid, scratch)
        finally:
            process.terminate()


def family(pid: int) -> Sequence[int]:
    """A process and all its descendants."""
    found = [pid]
    for each in found:
        for children in Path(f"/proc/{each}/task").glob("*/children"):  # of every thread
            found.extend(map(int, read(str(children)).split()))
    return found


def spent(pid: int) -> float:
    """Seconds of processor time of a process and of those of its children that have ended."""
    fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def held(pid: int) -> int:
    """KiB of a process; pages that several share are divided among them."""
    found = re.search(r"^Pss:\s+(\d+)", read(f"/proc/{pid}/smaps_rollup"), re.MULTILINE)
    return int(found[1]) if found else 0


def read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except OSError:  # it has ended
        return ""


def save_model(folder: Path) -> Path:
    torch.manual_seed(0)
    recipe, bert = choose_recipe(), folder / "bert"
    BertModel(BertConfig()).save_pretrained(bert)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(TEXT.split())]
    BertTokenizer(vocab={word: i for i, word in enumerate(words)}, model_max_length=512).save_pretrained(bert)
    widths = {name: len(columns) for name, columns in columns_of(recipe).items()}
    model = LateFusion(dims={"text": 768, **widths}, outputs=1, text_encoder=TextEncoder(str(bert)))
    modalities = {
        name: ModalityInfo(dim, "float32", 3000, 100, 1000.0, 1000, 0) for name, dim in {"text": 0, **widths}.items()
    }
    info = ModelInfo(
        modalities,
        LabelInfo("regression", 1, (-3.0, 3.0)),
        "clips",
        "made for a benchmark",
        True,
        TextInfo(str(bert), weights_sha256(bert), "finetune", 64),
        extraction=recipe.to_json(),
    )
    return save_pretrained(model.eval(), folder / "model", info)


if __name__ == "__main__":
    main()
