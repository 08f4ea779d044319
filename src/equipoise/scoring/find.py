"""Files and folders to clips."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

VIDEO = frozenset(
    ".3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv".split()  # noqa: SIM905
)
AUDIO = frozenset(".aac .aif .aiff .amr .flac .m4a .mka .mp3 .oga .ogg .opus .wav .wma".split())  # noqa: SIM905


def find_clips(paths: Iterable[str | Path]) -> list[Path]:
    """The files named, and those in the folders named that are called as sound or video is; each once.

    Folders are searched to their depths, in the order of names, but for what begins with a dot.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: a folder without a clip.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            if not path.exists():
                raise FileNotFoundError(f"There is no clip and no folder {path}.")
            found.append(path)
            continue
        inside = [file for file in sorted(path.rglob("*")) if _is_clip(file, path)]
        if not inside:
            raise ValueError(f"{path} should hold clips, such as .mp4 or .wav. Found none.")
        found += inside
    return list(dict.fromkeys(found))


def _is_clip(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return file.suffix.lower() in VIDEO | AUDIO and not hidden and file.is_file()
