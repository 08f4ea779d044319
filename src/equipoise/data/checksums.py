"""SHA-256 of the feature files that the field shares, and whether a file is one of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from equipoise.data.manifest import sha256

KNOWN: dict[str, tuple[str, str]] = {
    "78e0f8b5ef8ff71558e7307848fc1fa929ecb078203f565ab22b9daab2e02524": ("MOSI", "unaligned_50"),
    "d3994fd25681f9c7ad6e9c6596a6fe9b4beb85ff7d478ba978b124139002e5f9": ("MOSI", "aligned_50"),
    "ad8b23d50557045e7d47959ce6c5b955d8d983f2979c7d9b7b9226f6dd6fec1f": ("MOSEI", "unaligned_50"),
    "45eccfb748a87c80ecab9bfac29582e7b1466bf6605ff29d3b338a75120bf791": ("MOSEI", "aligned_50"),
    "c9e20c13ec0454d98bb9c1e520e490c75146bfa2dfeeea78d84de047dbdd442f": ("CH-SIMS", "unaligned_39"),
}


@dataclass(frozen=True, slots=True)
class Checksum:
    """What a file's SHA-256 says.

    Attributes:
        sha256: hex digest.
        published: such as ``MOSI unaligned_50 (published)``, if the file is that very file.
        warning: one line, if the file has the name of a published file but other content.

    """

    sha256: str
    published: str | None = None
    warning: str | None = None


def identify(path: str | Path) -> Checksum:
    """Compare a file with the published ones.

    Args:
        path: a file.

    Raises:
        OSError: the file can't be read.

    """
    path = Path(path)
    digest = sha256(path)
    if digest in KNOWN:
        return Checksum(digest, published=f"{' '.join(KNOWN[digest])} (published)")
    # `unaligned_50` ends in `aligned_50`: the longest name that fits is meant.
    names = sorted({file for _, file in KNOWN.values() if file in path.stem.lower()}, key=len)
    if not names:
        return Checksum(digest)
    sets = [f"{corpus} {file}" for corpus, file in KNOWN.values() if file == names[-1]]
    return Checksum(
        digest,
        warning=f"{path.name} is named like a published file ({', '.join(sets)}) but other content: SHA-256 {digest}.",
    )
