"""`config.json` of a saved model: how to build it again, and what surrounds it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from equipoise.layers import TextEncoder
from equipoise.models._arguments import arguments_of
from equipoise.training.model_info import ModelInfo, TextInfo

FORMAT, VERSION = "equipoise", 1
CONFIG, TEXT, IMAGES = "config.json", "text_encoder", "image_encoders"


def make_model_config(model: nn.Module, info: ModelInfo) -> dict[str, Any]:
    """The content of ``config.json``, but for ``files``, the SHA-256 of each other file.

    ``parts`` names the folders of pretrained encoders, and where in the model's state the weights in each belong.

    Raises:
        ValueError: another class of model, arguments that JSON can't hold, or an ``info`` of another model.
    """
    from equipoise import __version__

    arguments = arguments_of(model)
    expected = ({name: each.dim for name, each in info.modalities.items()}, info.labels.outputs)
    found = (arguments["dims"], arguments["outputs"])
    encoder = getattr(model, "text_encoder", None)
    if encoder is not None:  # the width of token ids says nothing, and the encoder's own is used
        expected[0]["text"] = found[0]["text"]
    if list(expected[0].items()) != list(found[0].items()) or expected[1] != found[1]:
        raise ValueError(f"Parameter `info` should have the model's widths and outputs, {found}. Found {expected}.")
    if encoder is not None and not isinstance(encoder, TextEncoder):
        raise ValueError(f"The model's `text_encoder` should be a `TextEncoder`. Found a {type(encoder).__name__}.")
    text = info.text
    if (encoder is not None) != (text is not None and text.mode == "finetune"):
        raise ValueError(
            f"Parameter `info` should have `text` of mode finetune if the model holds a text encoder, and only then. "
            f"Found `text = {text}` for {'one' if encoder is not None else 'none'}."
        )
    if text is not None:
        trainable = encoder is not None and encoder.trainable
        info = replace(info, text=replace(text, encoder=TEXT, trainable=trainable, origin=_origin(text)))
    parts = {} if encoder is None else {TEXT: "text_encoder.model."}
    if images := arguments.get("image_weights"):
        parts |= {f"{IMAGES}/{name}": f"encoders.{name}.model." for name in images}
        arguments["image_weights"] = {name: f"{IMAGES}/{name}" for name in images}
    config: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "equipoise": __version__,
        "torch": torch.__version__,
        "model": {"name": type(model).__name__, "arguments": arguments},
        "parts": parts,
        "info": asdict(info),
    }
    try:
        json.dumps(config, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"The model's arguments and `info` should be values that JSON can hold: {error}.") from None
    return config


def _origin(text: TextInfo) -> str:
    """What the encoder is called, without the place where it lay."""
    if text.origin:
        return text.origin
    return Path(text.encoder).name if Path(text.encoder).expanduser().is_dir() else text.encoder


def read_model_config(folder: Path) -> tuple[dict[str, Any], ModelInfo]:
    """The content of ``config.json``, checked, and its ``info``, both with the encoders where they lie now.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, no saved model's, or of a newer equipoise.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is no saved model: {CONFIG} not found. Make one with `equipoise export`.")
    try:
        config = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: it is not JSON ({error}).") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError(f"{folder} is no model that equipoise saved: {path.name} does not say so.")
    if config.get("version") != VERSION:
        raise ValueError(
            f"{path} should have version {VERSION}. Found {config.get('version')!r}, written by equipoise "
            f"{config.get('equipoise')}: install that version or a newer one."
        )
    wanted: dict[str, Any] = {"model": dict, "info": dict, "parts": dict, "files": dict}
    model = config.get("model")
    parts = {**config, **(model if isinstance(model, dict) else {})}
    for key, kind in {**wanted, "name": str, "arguments": dict}.items():
        if not isinstance(parts.get(key), kind):
            raise ValueError(f"{path} is damaged: `{key}` should be there as a {kind.__name__}.")
    arguments = config["model"]["arguments"]
    if images := arguments.get("image_weights"):
        arguments["image_weights"] = {name: str(folder / part) for name, part in images.items()}
    return config, _read_info(folder, config["info"])


def is_pretrained(folder: Path) -> bool:
    """Whether the folder is a saved model; it may be damaged."""
    try:
        return bool(json.loads((folder / CONFIG).read_bytes())["format"] == FORMAT)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _read_info(folder: Path, raw: Mapping[str, Any]) -> ModelInfo:
    try:
        info = TypeAdapter(ModelInfo).validate_python(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, ("info", *first["loc"])))
        raise ValueError(f"{folder / CONFIG} is damaged: `{where}`: {first['msg']}.") from None
    if info.text is None:
        return info
    return replace(info, text=replace(info.text, encoder=str(folder / TEXT)))
