"""What a run is: typed, from YAML, from dotted overrides, or both."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from equipoise.balancers import BALANCERS
from equipoise.models import MODELS
from equipoise.training.arguments import check_arguments, class_named, unknown

FIXED = {
    "model": frozenset({"dims", "outputs", "text_encoder"}),
    "balancer": frozenset({"modalities"}),
}
"""Arguments that the data or the model decide, so that no config may."""


WORDS = ("data", "text", "encoder", "precision")
"""Keys whose values are words even where YAML sees a number, a truth value (`no`), a comment or nothing it can read."""

MAX_SEED = 2**64 - 1  # of torch


class _Loader(yaml.SafeLoader):
    """Safe YAML, with the values of `WORDS` as they are written, and no key twice: the first would be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: list[Any] = []
        for key, value in node.value:
            if key.value in seen:
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: the key `{key.value}` stands there twice")
            seen.append(key.value)
            if key.value in WORDS and isinstance(value, yaml.ScalarNode) and not value.tag.endswith(":null"):
                value.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Named(BaseModel):
    """A class by its name, with that class's own keyword arguments beside it."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments, as the constructor takes them."""
        return dict(self.model_extra or {})


class ModelConfig(_Named):
    """A model of `equipoise.models.MODELS`, or a function that makes one (``FILE.py:FUNCTION``), and its arguments.

    A function is not looked at before the model is built: reading a config runs no code.
    """

    name: str = "LateFusion"

    @model_validator(mode="after")
    def _known(self) -> ModelConfig:
        if ":" in self.name:
            return self
        found = class_named(self.name, MODELS, key="model.name")
        checked = check_arguments(found, self.arguments, key="model", fixed=FIXED["model"])
        self.__pydantic_extra__ = checked
        return self


class BalancerConfig(_Named):
    """A balancer of `equipoise.balancers.BALANCERS`, the model's stage that it balances, and its keyword arguments.

    ``teachers`` are run directories by modality, for a balancer that learns from models of one modality each.
    """

    stage: str = "encoders"
    teachers: dict[str, str] | None = None

    @model_validator(mode="after")
    def _known(self) -> BalancerConfig:
        found = class_named(self.name, BALANCERS, key="balancer.name", also=("plain",))
        checked = check_arguments(
            found, self.arguments, key="balancer", fixed=FIXED["balancer"], also=("name", "stage", "teachers")
        )
        self.__pydantic_extra__ = checked
        return self


class TextConfig(_Part):
    """Where text features come from: the dataset's own (``encoder``: None or "none"), or an encoder on the raw text."""

    encoder: Annotated[str | None, BeforeValidator(lambda v: None if v == "none" else v)] = None
    mode: Literal["finetune", "frozen"] = "finetune"
    lr: float = Field(5e-5, gt=0)
    max_tokens: int = Field(64, ge=3)


def _rates(value: Any) -> Any:
    """One rate, or one for each modality named; as words too, which values under the key `text` are."""
    try:
        rates = {name: float(each) for name, each in value.items()} if isinstance(value, Mapping) else float(value)
    except (TypeError, ValueError):
        rates = math.nan
    numbers = rates.values() if isinstance(rates, dict) else [rates]
    if isinstance(value, bool) or not all(0 <= number < 1 for number in numbers):
        raise ValueError(
            "Config keys `train.drop_modalities` and `train.drop_frames` should be a rate, at least 0 and below 1, or "
            f"a rate by modality. Found {value!r}. To train without a modality, leave it out of `modalities`."
        )
    return rates


Rates = Annotated[float | dict[str, float], BeforeValidator(_rates)]


class TrainConfig(_Part):
    """How the loop trains. ``warmup`` is a share of all steps; ``checkpoint_every`` counts steps.

    None is each epoch, 0 none before the end. ``trace_every`` and ``direction_every`` count steps and micro-batches
    between records of gradients, 0 for none. ``keep_epochs`` keeps the weights after every epoch.
    ``drop_modalities`` and ``drop_frames`` are rates, or rates by modality.
    """

    epochs: int = Field(20, ge=1)
    batch_size: int = Field(32, ge=1)
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    momentum: float = Field(0.9, ge=0, lt=1)
    scheduler: Literal["none", "linear", "cosine"] = "none"
    warmup: float = Field(0.0, ge=0, lt=1)
    clip: float | None = Field(1.0, gt=0)
    accumulate: int = Field(1, ge=1)
    precision: Literal["no", "bf16", "fp16"] = "no"
    patience: int | None = Field(None, ge=1)
    workers: int = Field(0, ge=0)
    unimodal_weight: float = Field(0.0, ge=0)
    normalise: bool = True
    select: str | None = None
    loss: Literal["l1", "mse", "cross_entropy"] | None = None
    checkpoint_every: int | None = Field(None, ge=0)
    trace_every: int = Field(10, ge=0)
    direction_every: int = Field(500, ge=0)
    keep_epochs: bool = False
    drop_modalities: Rates = 0.0
    drop_frames: Rates = 0.0


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _model(value: Any) -> Any:
    """With ``function`` for the name of a model that a function makes."""
    if isinstance(value, Mapping) and "function" in value and "name" not in value:
        return {"name": value["function"], **{key: each for key, each in value.items() if key != "function"}}
    return _named(value)


def _balancers(value: Any) -> Any:
    listed = [] if value is None else list(value) if isinstance(value, list | tuple) else [value]
    named = [_named(each) for each in listed]
    plain = [each for each in named if isinstance(each, Mapping) and each.get("name") == "plain"]
    if plain and (len(named) > 1 or len(plain[0]) > 1):
        raise ValueError(
            "Config key `balancer`: `plain` is no balancer, so it takes no settings and stands in no list. "
            f"Found `balancer = {value!r}`."
        )
    return [] if plain else named


def _names(value: Any) -> Any:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


class RunConfig(_Part):
    """One run. No balancer is the plain model; several are chained."""

    data: str
    modalities: Annotated[list[str] | None, BeforeValidator(_names)] = None
    model: Annotated[ModelConfig, BeforeValidator(_model)] = ModelConfig()
    balancer: Annotated[list[BalancerConfig], BeforeValidator(_balancers)] = []
    text: Annotated[TextConfig, BeforeValidator(lambda v: {"encoder": v} if v is None or isinstance(v, str) else v)] = (
        TextConfig()
    )
    train: TrainConfig = TrainConfig()
    seed: int = Field(0, ge=0, le=MAX_SEED)
    protocol: Literal["honest", "paper"] = "honest"
    threads: int | None = Field(None, ge=1, le=1024)


def load_config(path: str | Path | None = None, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """Read a YAML file, lay dotted overrides over it, and check the whole.

    Args:
        path: a YAML file; None starts from the defaults.
        overrides: ``{"model.hidden": "64", "balancer": "agm", "balancer.alpha": "0.3"}``; strings are read
            as YAML scalars.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not YAML, an unknown key, or a wrong value: one line that names the key and the nearest valid name.
    """
    values: dict[str, Any] = {}
    if path is not None:
        values = read_yaml(Path(path))
    # Shallow keys first, so that `balancer=agm` does not wipe out `balancer.alpha` given before it.
    for key, value in sorted((overrides or {}).items(), key=lambda item: item[0].count(".")):
        _put(values, key, _scalar(key, value) if isinstance(value, str) else value)
    return make_config(values)


def make_config(values: Mapping[str, Any]) -> RunConfig:
    """Check a nested mapping.

    Raises:
        ValueError: as `load_config`.
    """
    try:
        return RunConfig.model_validate(dict(values))
    except ValidationError as error:
        raise ValueError(_one_line(error)) from None


def dump_config(config: RunConfig) -> str:
    """YAML text with every value spelled out; `load_config` reads it back to the same config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, unchecked; no key may stand there twice.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a directory, no YAML, or no mapping.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a directory. A config is a YAML file; a dataset is given by `--data`.")
    if not path.is_file():
        raise FileNotFoundError(f"Config file not found: {path}.")
    try:
        values = yaml.load(path.read_text(encoding="utf-8-sig"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"{path} should hold a mapping of config keys. Found {type(values).__name__}.")
    return values


def _scalar(key: str, text: str) -> Any:
    word = key.rpartition(".")[2] in WORDS
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError:
        if word:
            return text
        raise ValueError(f"Config key `{key}`: the value is not valid YAML. Found {text!r}.") from None
    structured = key != "data" and (value is None or isinstance(value, dict))
    return text if word and not structured else value


def _put(values: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    node: Any = values
    for depth, parent in enumerate(parents):
        child = node.get(parent)
        if isinstance(child, list) and len(child) == 1:
            child = child[0]
        if isinstance(child, str):
            child = {("encoder" if parent == "text" else "name"): child}
        if child is None:
            child = {}
        if not isinstance(child, dict):
            inner = ".".join(parents[: depth + 1])
            raise ValueError(f"Config key `{dotted}`: `{inner}` holds no keys. Found `{inner} = {child!r}`.")
        node[parent] = child
        node = child
    if dotted == "text" and isinstance(value, str) and isinstance(values.get("text"), dict):
        node, last = values["text"], "encoder"  # another encoder, and the file's other settings of text
    node[last] = value


def _one_line(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part != 0)
    if first["type"] == "extra_forbidden":
        *parents, last = [str(part) for part in first["loc"]]
        parts: dict[str, type[BaseModel]] = {"train": TrainConfig, "text": TextConfig}
        part = parts.get(".".join(parents), RunConfig)
        return unknown("config key", last, part.model_fields, prefix="".join(f"{parent}." for parent in parents))
    if first["type"] == "model_type":
        return f"Config key `{where}` should be a mapping of settings. Found `{where} = {first['input']!r}`."
    if first["type"] == "missing":
        return f"Config key `{where}` is required. Found none. Set it in the file or by `--{where} VALUE`."
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    return f"Config key `{where}`: {first['msg'][:1].lower()}{first['msg'][1:]}. Found `{where} = {first['input']!r}`."
