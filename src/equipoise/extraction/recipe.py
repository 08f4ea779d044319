"""How clips become features: all of it, as one value that a dataset and a saved model carry with them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

Align = Literal["none", "words"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings of an extraction; JSON holds all of it.

    Attributes:
        audio: settings of the audio extractor (`Extractor.settings`); None to leave audio out.
        vision: of the vision extractor; None to leave vision out.
        speech: settings of what recognises speech where a clip has no transcript; None for nothing.
        text: whether transcripts belong to the dataset.
        align: ``none``, each modality at its own rate; ``words``, audio and vision averaged over each spoken word.
        aligner: name and version of what finds the times of words that have none; None to leave such clips unaligned.
        decoder: name and version of the decoder and its libraries.
    """

    audio: dict[str, Any] | None = None
    vision: dict[str, Any] | None = None
    speech: dict[str, Any] | None = None
    text: bool = True
    align: Align = "none"
    aligner: dict[str, str] | None = None
    decoder: dict[str, str] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `Recipe(**values)` is the way back."""
        return asdict(self)

    def digest(self) -> str:
        """64 hexadecimal digits that change with every setting."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()
