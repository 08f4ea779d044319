"""The leakage check: what two splits share that they shouldn't."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from equipoise.data.dataset import Dataset

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Leakage:
    """What the leakage check found.

    Attributes:
        speakers: speakers heard in two splits or more; None where no speakers are recorded.
        groups: source videos in two splits or more; None where none are recorded.
        texts: distinct transcripts in two splits or more (case and spacing aside); None without transcripts.
        features: per modality, distinct feature sequences that are bit-identical in two splits or more.
        single_label: splits whose samples all have one label.
        samples: rows, outside the training split, that share any of these with another split.
        messages: one line a finding.
        leaks: whether two splits share anything.

    """

    speakers: int | None
    groups: int | None
    texts: int | None
    features: Mapping[str, int]
    single_label: tuple[str, ...]
    samples: int
    messages: tuple[str, ...]
    leaks: bool

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def find_leakage(
    splits: Sequence[str],
    labels: Array,
    *,
    speakers: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    texts: Sequence[str] | None = None,
    modalities: Mapping[str, Iterable[Array]] | None = None,
) -> Leakage:
    """Check rows against each other.

    Args:
        splits: ``[N]``, the split of each row.
        labels: ``[N]`` or ``[N, R]``.
        speakers: ``[N]``; an empty name is unknown and never shared.
        groups: ``[N]`` source videos; likewise.
        texts: ``[N]`` transcripts; an empty one is never shared.
        modalities: per modality, one ``[T, d]`` array a row; read once, one at a time. Rows without frames, and rows
            that are zero throughout, are not compared.

    """
    split = np.asarray(splits)
    rows = np.zeros(len(split), dtype=bool)
    messages: list[str] = []

    def count(keys: Sequence[str | bytes | None], what: str, plural: str) -> int:
        found = _shared(keys, splits)
        if found:
            names = sorted({splits[i] for members in found.values() for i in members}, key=_order)
            key, members = next(iter(found.items()))
            shown = (
                f", such as {_short(key)}" if isinstance(key, str) else f", such as rows {members[0]} and {members[-1]}"
            )
            messages.append(
                f"{len(found)} {what if len(found) == 1 else plural} in two splits ({', '.join(names)}){shown}"
            )
            rows[[i for members in found.values() for i in members if splits[i] != "train"]] = True
        return len(found)

    by_speaker = None if speakers is None else count([s or None for s in speakers], "speaker", "speakers")
    by_group = None if groups is None else count([g or None for g in groups], "source video", "source videos")
    normal = None if texts is None else [" ".join(t.lower().split()) or None for t in texts]
    by_text = None if normal is None else count(normal, "transcript", "transcripts")
    features = {
        name: count([_digest(row) for row in sequences], f"{name} sequence", f"{name} sequences")
        for name, sequences in (modalities or {}).items()
    }
    shared = bool(messages)
    single = tuple(
        name
        for name in sorted(set(splits), key=_order)
        if (split == name).sum() > 1 and len(np.unique(np.asarray(labels)[split == name], axis=0)) == 1
    )
    messages += [f"every sample of {name} has the same label" for name in single]
    return Leakage(by_speaker, by_group, by_text, features, single, int(rows.sum()), tuple(messages), shared)


def check_leakage(dataset: Dataset) -> Leakage:
    """The check on a dataset directory; features are read one row at a time."""
    return find_leakage(
        dataset.columns["split"],
        dataset.labels,
        speakers=dataset.speakers,
        groups=dataset.groups,
        texts=dataset.texts,
        modalities={name: (dataset.sequence(name, row) for row in range(len(dataset))) for name in dataset.modalities},
    )


def _shared(keys: Sequence[str | bytes | None], splits: Sequence[str]) -> dict[str | bytes, list[int]]:
    members: dict[str | bytes, list[int]] = {}
    for i, key in enumerate(keys):
        if key is not None:
            members.setdefault(key, []).append(i)
    return {key: rows for key, rows in members.items() if len({splits[i] for i in rows}) > 1}


def _digest(frames: Array) -> bytes | None:
    if not frames.any():
        return None
    digest = hashlib.blake2b(np.ascontiguousarray(frames).tobytes(), digest_size=16)
    digest.update(repr(frames.shape).encode())
    return digest.digest()


def _order(split: str) -> tuple[int, str]:
    names = ("train", "valid", "test")
    return (names.index(split) if split in names else len(names), split)


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")
