"""What a server counts, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics:
    """Counters of one server; a registry of its own, so that several fit in a process."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a time of birth beside every counter doubles the text
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "equipoise_requests", "HTTP requests.", ("method", "route", "status"), registry=self.registry
        )
        self.clips = Counter("equipoise_clips", "Clips by what became of them.", ("outcome",), registry=self.registry)
        self.decoding = self._seconds("equipoise_decoding_seconds", "Seconds to decode a clip and extract features.")
        self.scoring = self._seconds("equipoise_scoring_seconds", "Seconds of one forward pass with contributions.")
        self.whole = self._seconds("equipoise_clip_seconds", "Seconds from the upload of a clip to its score.")
        self.batch = Histogram(
            "equipoise_batch_clips", "Clips in one forward pass.", buckets=(1, 2, 4, 8, 16, 32), registry=self.registry
        )

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A gauge that is read when it is asked for."""
        Gauge(name, text, registry=self.registry).set_function(value)

    def text(self) -> bytes:
        """All of it, as `CONTENT_TYPE`."""
        return bytes(generate_latest(self.registry))

    def _seconds(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, buckets=_SECONDS, registry=self.registry)
