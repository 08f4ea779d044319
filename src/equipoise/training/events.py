"""TensorBoard events, written at once: no thread, and bytes that can be counted and cut back like any table's."""

from __future__ import annotations

import io
import time
from collections.abc import Iterable, Mapping


def event_bytes(rows: Iterable[Mapping[str, float | int | None]], *, kind: str, at: str, first: bool = False) -> bytes:
    """The events of some rows.

    Args:
        rows: one scalar a column that has a value, as ``kind/column``.
        kind: what a row is: ``"step"`` or ``"epoch"``.
        at: the column that holds the step.
        first: whether they begin a file.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    now = time.time()
    if first:
        writer.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
    for row in rows:
        values = [
            Summary.Value(tag=f"{kind}/{name}", simple_value=value)
            for name, value in row.items()
            if name != at and value is not None
        ]
        event = Event(wall_time=now, step=int(row[at] or 0), summary=Summary(value=values))
        writer.write(event.SerializeToString())
    return buffer.getvalue()
