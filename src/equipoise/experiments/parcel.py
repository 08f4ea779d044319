"""A cell's result as bytes, for a store that the machine that made it does not see."""

from __future__ import annotations

import tempfile

from equipoise.experiments.store import DONE, FAILED, LEFT_BEHIND, Store


def pack(store: Store, id: str) -> dict[str, bytes]:
    """``{path in the store: content}`` of a cell that is done or has failed; of its run all but the checkpoints.

    Raises:
        OSError: something can't be read.
    """
    run = store.run_dir(id)
    files = [store.root / name / f"{id}.json" for name in (DONE, FAILED)]
    files += [path for path in sorted(run.rglob("*")) if not LEFT_BEHIND(str(run), list(path.relative_to(run).parts))]
    return {path.relative_to(store.root).as_posix(): path.read_bytes() for path in files if path.is_file()}


def unpack(parcel: dict[str, bytes], store: Store) -> None:
    """Put what was packed into another store; the run first and the result last, as in any merge.

    Raises:
        OSError: something can't be written.
        ValueError: a damaged result.
    """
    with tempfile.TemporaryDirectory(dir=store.root, prefix=".parcel-") as folder:
        there = Store(folder)
        for name, content in parcel.items():
            path = there.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        store.merge(there)
