"""The papers' own settings, one run config a dataset, found by name."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Preset:
    """What a preset is for.

    Attributes:
        paper: whose settings they are.
        shape: a name of `equipoise.data.shapes.SHAPES`, the dataset; None where generated data have no such shape.
    """

    paper: str
    shape: str | None


PRESETS: dict[str, Preset] = {
    "ags-smoe-mosi": Preset("AGS-SMoE", "mosi"),
    "ags-smoe-mosi-text-audio": Preset("AGS-SMoE", "mosi-text-audio"),
    "ags-smoe-mosei": Preset("AGS-SMoE", "mosei"),
    "ags-smoe-ch-sims": Preset("AGS-SMoE", "ch-sims"),
    "ags-smoe-ur-funny": Preset("AGS-SMoE", "ur-funny-v2"),
    "mmafnet-mosi": Preset("MMAFNet", "mosi"),
    "mmafnet-mosei": Preset("MMAFNet", "mosei"),
    "cpsl-mosi": Preset("CP + SL", "mosi"),
    "cpsl-mosei": Preset("CP + SL", "mosei"),
    "glomo-mosi": Preset("GLoMo", "mosi"),
    "glomo-mosei": Preset("GLoMo", "mosei"),
    "glomo-ur-funny": Preset("GLoMo", "ur-funny"),
    "glomo-mustard": Preset("GLoMo", "mustard"),
    "glomo-cherma": Preset("GLoMo", "cherma"),
    "agm-av-mnist": Preset("AGM", "av-mnist"),
    "agm-av-mnist-early": Preset("AGM", "av-mnist"),
    "agm-crema-d": Preset("AGM", "crema-d"),
    "agm-crema-d-early": Preset("AGM", "crema-d"),
    "agm-ur-funny": Preset("AGM", "ur-funny-v2"),
    "agm-ur-funny-early": Preset("AGM", "ur-funny-v2"),
    "agm-mosei": Preset("AGM", "mosei-binary"),
    "agm-ave": Preset("AGM", "ave"),
    "agm-kinetics-sounds": Preset("AGM", "kinetics-sounds"),
    "agm-kinetics-sounds-film": Preset("AGM", "kinetics-sounds"),
    "agm-avletters": Preset("none, after AGM", "avletters"),
    "agm-pom": Preset("none, after AGM", None),
}
"""By name; `src/equipoise/presets/NAME.yaml` is the config, without ``data``."""


def preset_path(name: str) -> Path:
    """Where the config of a preset lies."""
    return Path(str(files("equipoise"))) / "presets" / f"{name}.yaml"


def find_config(name: str | Path) -> Path:
    """The config file of that path or, where nothing has that path, of the preset of that name.

    Raises:
        FileNotFoundError: neither; the message offers the nearest preset for what is no file name.
    """
    if Path(name).exists():
        return Path(name)
    if str(name) in PRESETS:
        return preset_path(str(name))
    if Path(name).suffix in (".yaml", ".yml"):
        raise FileNotFoundError(f"Config file not found: {name}.")
    near = difflib.get_close_matches(str(name).lower(), PRESETS, n=1, cutoff=0.6)
    meant = f" Did you mean the preset `{near[0]}`?" if near else ""
    raise FileNotFoundError(f"Config file not found: {name}.{meant} Presets: `equipoise list presets`.")
