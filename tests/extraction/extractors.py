"""Extractors whose features are known in advance, and some that fail as real ones do."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import numpy as np

from equipoise.features.clip import Clip
from equipoise.features.stream import FeatureStream, no_frames


class Brightness:
    """Mean and number of the picture every 1/rate seconds; a clip of a certain name takes its process down or hangs."""

    modality = "vision"
    columns = ("brightness", "number")

    def __init__(self, *, rate: float = 5.0) -> None:
        self.rate = rate

    def settings(self) -> dict[str, Any]:
        return {"name": "brightness", "arguments": {"rate": self.rate}, "version": 1}

    def extract(self, clip: Clip) -> FeatureStream:
        if "crash" in clip.path.name:
            os.kill(os.getpid(), signal.SIGKILL)
        if "hang" in clip.path.name:
            time.sleep(60)
        if "full" in clip.path.name:
            raise OSError(28, "No space left on device", str(clip.path))
        if not clip.has_video:
            return no_frames(2, "no video track")
        found = [(picture.time, picture.image.mean()) for picture in clip.pictures(self.rate)]
        if max(mean for _, mean in found) < 4:
            return no_frames(2, "nothing to see")
        values = np.array([[mean, row] for row, (_, mean) in enumerate(found)], np.float32)
        return FeatureStream(values, np.array([at for at, _ in found]), self.rate)
