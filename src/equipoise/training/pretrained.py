"""A trained model as a folder that can be published: weights, what they need to be used, a model card."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from equipoise.data.manifest import sha256
from equipoise.layers import TextEncoder
from equipoise.layers.resnet import ResNetEncoder
from equipoise.models import MODELS
from equipoise.training.encoder_folders import WEIGHTS, write_image_encoder, write_text_encoder, write_weights
from equipoise.training.files import sync_folder, write_durably
from equipoise.training.hub import download_model
from equipoise.training.model_config import CONFIG, TEXT, is_pretrained, make_model_config, read_model_config
from equipoise.training.model_info import ModelInfo, TextInfo
from equipoise.training.state import load_state, match_precision

CARD = "README.md"


def save_pretrained(
    model: nn.Module, folder: str | Path, info: ModelInfo, *, card: str | None = None, overwrite: bool = False
) -> Path:
    """Write a model of `equipoise.models` into a folder from which `from_pretrained` builds it again, bit by bit.

    The folder holds ``model.safetensors`` (weights and buffers, the normaliser's too), ``config.json``, each pretrained
    encoder as a whole Transformers model (``text_encoder/`` with its tokenizer, ``image_encoders/``), and
    ``README.md``, the model card. It is complete or not there at all. Nothing is pickled.

    Args:
        model: what to save, on any device, in any precision.
        folder: to be made.
        info: what surrounds the model; see `equipoise.training.model_info.describe`.
        card: the model card, Markdown with the hub's metadata; see `equipoise.report.card.model_card`.
        overwrite: replace a saved model that is there.

    Raises:
        FileExistsError: the folder exists, and is not a saved model to be replaced.
        FileNotFoundError: the text encoder is no longer where it was; its tokenizer has to be saved too.
        ValueError: another class of model, arguments that JSON can't hold, or an ``info`` of another model.
    """
    folder = Path(folder)
    check_target(folder, overwrite=overwrite)
    config, tensors = make_model_config(model, info), model.state_dict()
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.writing")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        shares = {part: _share(tensors, prefix) for part, prefix in config["parts"].items()}
        if info.text is not None:
            write_text_encoder(temporary / TEXT, info.text.encoder, shares.pop(TEXT, None))
        for part, share in shares.items():
            encoder = model.get_submodule(config["parts"][part].removesuffix(".model."))
            write_image_encoder(temporary / part, cast(ResNetEncoder, encoder), share)
        inside = tuple(config["parts"].values())
        write_weights(temporary / WEIGHTS, {name: x for name, x in tensors.items() if not name.startswith(inside)})
        files = sorted(path for path in temporary.rglob("*") if path.is_file())
        config["files"] = {path.relative_to(temporary).as_posix(): sha256(path) for path in files}
        if card is not None:
            write_durably(temporary / CARD, card.encode())
        write_durably(temporary / CONFIG, (json.dumps(config, indent=1, ensure_ascii=False) + "\n").encode())
        sync_folder(temporary)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def from_pretrained(name_or_path: str | Path, *, revision: str | None = None) -> tuple[nn.Module, ModelInfo]:
    """A saved model, in evaluation mode on the CPU, and what surrounds it.

    Weights keep the precision that they were saved in. No random number is drawn. No file of the training is needed.

    Args:
        name_or_path: a folder that `save_pretrained` wrote, or the name of one on the Hugging Face Hub.
            ``HF_HUB_OFFLINE`` is honoured; the hub's cache serves where the hub is out of reach.
        revision: of a hub name: a branch, a tag or a commit.

    Raises:
        FileNotFoundError: no such folder, or no such name on the hub.
        ValueError: the folder is damaged, no saved model, or of a newer equipoise.
    """
    folder = find_pretrained(name_or_path, revision)
    config, info = read_model_config(folder)
    for name, digest in config["files"].items():
        if not (folder / name).is_file() or sha256(folder / name) != digest:
            raise ValueError(f"{folder / name} should be the file that was saved. It is damaged, or another one.")
    name, arguments = config["model"]["name"], config["model"]["arguments"]
    with torch.random.fork_rng(devices=[]):
        model = _build(folder, name, arguments, info.text)
    try:
        tensors = safetensors.torch.load_file(folder / WEIGHTS)
        for part, prefix in config["parts"].items():
            share = safetensors.torch.load_file(folder / part / WEIGHTS)
            tensors |= {f"{prefix}{key}": value for key, value in share.items()}
        match_precision(model, tensors)
        load_state(model, tensors)
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"The weights in {folder} are not those of its {name}: {reason}") from None
    return model.eval(), info


def check_target(folder: Path, *, overwrite: bool) -> None:
    """Refuse to write over anything but a saved model, and over that unless asked.

    Raises:
        FileExistsError: there is something.
    """
    if folder.exists() and not (overwrite and is_pretrained(folder)):
        do = "replace it (`overwrite`) or give another one" if is_pretrained(folder) else "give another one"
        raise FileExistsError(f"{folder} is there already: {do}.")


def find_pretrained(name_or_path: str | Path, revision: str | None = None) -> Path:
    """The local folder of a saved model: given, or downloaded from the hub.

    Raises:
        FileNotFoundError: there is none.
    """
    name = str(name_or_path)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if isinstance(name_or_path, Path) or folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise FileNotFoundError(f"Saved model not found: there is no folder {folder}.")
    return download_model(name, revision)


def _share(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}


def _build(folder: Path, name: str, arguments: dict[str, Any], text: TextInfo | None) -> nn.Module:
    if name not in MODELS:
        raise ValueError(f"{folder} holds a model that this version of equipoise does not have: {name}.")
    try:
        given = dict(arguments)
        if text is not None and text.mode == "finetune":
            given["text_encoder"] = TextEncoder(text.encoder, trainable=text.trainable)
        return cast(Any, MODELS[name])(**given)  # type: ignore[no-any-return]
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{name} can't be built as {folder / CONFIG} says: {reason}") from None
