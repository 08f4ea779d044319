"""Any model as one of ours: it is told what it reads, and asked for nothing but logits."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from equipoise.core import Batch, Modalities
from equipoise.layers import Normaliser, masked_mean
from equipoise.models._inputs import check_stage, squeezed
from equipoise.models.output import Output

Parts = tuple[Tensor, Tensor]
"""A modality's input ``[B, T, d]`` and its mask ``[B, T]``."""


class ForeignModel(nn.Module):
    """A model of the user's own, with ``encode``, ``fuse`` and ``modalities`` as training asks for them.

    What it is given: standardised features with zeros as padding, one keyword for each modality, under the names of
    its ``forward``: ``text [B, T, d]`` and, where ``forward`` takes them, ``text_mask [B, T]`` (True on real frames).
    A ``forward`` with ``**keywords`` gets all of them, and one with the only argument ``batch`` an
    :class:`equipoise.core.Batch`. A method ``read(batch)`` of the model takes the place of all this: it returns the
    keywords for ``forward``. The batch holds no labels.

    What it gives: logits ``[B]``, ``[B, R]`` or ``[B, C]``, or a mapping with them as ``"logits"`` and, where it has
    them, ``"unimodal"`` (like logits, by modality) and ``"features"`` (``[B, d_m]``, by modality), for balancers that
    need these. Where it gives no features, they are what its encoders returned: ``[B, d]``, or ``[B, T, d]`` averaged
    over real frames, of a tuple the first; there are none if an encoder isn't one module or returns something else.

    An absent modality is one frame of zeros, and the model runs anew for each subset that is asked for: what its
    encoders found is not kept, as it is in the models of equipoise.

    Args:
        model: to be wrapped.
        dims: ``{m: d_m}``, the modalities and the widths of their features.
        outputs: number of targets or classes.

    Raises:
        ValueError: a ``forward`` that does not take the modalities.
    """

    def __init__(self, model: nn.Module, *, dims: Mapping[str, int], outputs: int = 1) -> None:
        super().__init__()
        self.dims, self.outputs = dict(dims), outputs
        self.normaliser = Normaliser(self.dims)
        self.model = model
        self._keywords = _keywords(model, tuple(self.dims))

    def encode(self, batch: Batch) -> dict[str, Parts]:
        """``{m: (values [B, T, d], mask [B, T])}``, standardised; encoding itself is left to ``fuse``."""
        found: dict[str, Parts] = {}
        for name in self.dims:
            if name in batch.inputs:
                sequence = self.normaliser(name, batch.inputs[name], batch.masks[name])
                found[name] = (sequence.values, sequence.mask)
        return found

    def fuse(self, encoded: Mapping[str, Parts]) -> Output:
        """The model's own forward, with zeros for the modalities that are not there.

        Raises:
            ValueError: it returns neither logits nor a mapping with them.
        """
        some = next(iter(encoded.values()))[0]
        inputs, masks = dict[str, Tensor](), dict[str, Tensor]()
        for name, dim in self.dims.items():
            if name in encoded:
                inputs[name], masks[name] = encoded[name]
            else:
                inputs[name] = some.new_zeros(len(some), 1, dim)
                masks[name] = torch.ones(len(some), 1, dtype=torch.bool, device=some.device)
        found, seen = self._observed(self._read(inputs, masks))
        given = found if isinstance(found, Mapping) else {"logits": found}
        logits = given.get("logits")
        if not isinstance(logits, Tensor) or set(given) - {"logits", "unimodal", "features"}:
            what = f"a mapping with {', '.join(map(str, given))}" if given is found else f"a {type(found).__name__}"
            raise ValueError(
                f"{type(self.model).__name__} should return logits, or a mapping with `logits` and, where it has them, "
                f"`unimodal` and `features`. Found {what}."
            )
        unimodal = given.get("unimodal")
        own = None if unimodal is None else {name: self._shaped(each) for name, each in unimodal.items()}
        features = dict(given.get("features") or _pooled(seen, masks))
        return Output(self._shaped(logits), own, features)

    def forward(self, batch: Batch) -> Output:
        """``fuse(encode(batch))``."""
        return self.fuse(self.encode(batch))

    def modalities(self, stage: str = "encoders") -> Modalities:
        """Each modality's encoder.

        It is what the model's own ``modalities(stage)`` says; or else ``encoders[m]``, or the module called ``m``,
        ``m_encoder`` or ``encoder_m``.

        Raises:
            ValueError: there is none.
        """
        own = getattr(self.model, "modalities", None)
        if callable(own):
            return cast(Modalities, own(stage))
        check_stage(stage)
        return Modalities(**{name: self._encoder(name) for name in self.dims})

    def _observed(self, keywords: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        """What the model returns, and each encoder that is one module."""
        seen: dict[str, Any] = {}
        hooks = [
            encoder.register_forward_hook(lambda _, __, out, name=name: seen.__setitem__(name, out))
            for name in self.dims
            if (encoder := self._module(name)) is not None
        ]
        try:
            return self.model(**keywords), seen
        finally:
            for hook in hooks:
                hook.remove()

    def _encoder(self, name: str) -> nn.Module:
        if (found := self._module(name)) is None:
            raise ValueError(
                f"{type(self.model).__name__} should say what is balanced for {name!r}: `encoders[{name!r}]`, a module "
                f"`{name}`, `{name}_encoder` or `encoder_{name}`, or a method `modalities(stage)`. Found none."
            )
        return found

    def _module(self, name: str) -> nn.Module | None:
        encoders = getattr(self.model, "encoders", {})
        if isinstance(encoders, nn.ModuleDict | Mapping) and name in encoders:
            return cast(nn.Module, encoders[name])
        for word in (name, f"{name}_encoder", f"encoder_{name}"):
            if isinstance(module := getattr(self.model, word, None), nn.Module):
                return module
        return None

    def _read(self, inputs: dict[str, Tensor], masks: dict[str, Tensor]) -> Mapping[str, Any]:
        if self._keywords is not None:
            every = inputs | {f"{name}_mask": mask for name, mask in masks.items()}
            return {name: every[name] for name in self._keywords}
        some = next(iter(inputs.values()))
        nobody = torch.full((len(some),), -1, device=some.device)
        batch = Batch(inputs, masks, target=some.new_full((len(some),), torch.nan), index=nobody)
        read = getattr(self.model, "read", None)
        return cast(Mapping[str, Any], read(batch)) if callable(read) else {"batch": batch}

    def _shaped(self, logits: Tensor) -> Tensor:
        return squeezed(logits) if logits.ndim == 2 and self.outputs == 1 else logits


def _pooled(seen: Mapping[str, Any], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``{m: [B, d]}`` of what all encoders returned; empty if one of them returned no such thing."""
    found: dict[str, Tensor] = {}
    for name, mask in masks.items():
        out = seen.get(name)
        out = out[0] if isinstance(out, tuple) and out else out
        if not isinstance(out, Tensor) or len(out) != len(mask):
            return {}
        if out.ndim == 3 and out.shape[:2] == mask.shape:
            found[name] = masked_mean(out, mask)
        elif out.ndim == 2:
            found[name] = out
        else:
            return {}
    return found


def _keywords(model: nn.Module, names: tuple[str, ...]) -> tuple[str, ...] | None:
    """The inputs and masks that ``forward`` takes by name; None where it takes a batch, or the model reads its own."""
    if callable(getattr(model, "read", None)):
        return None
    parameters = inspect.signature(model.forward).parameters
    if list(parameters) == ["batch"]:
        return None
    every = [*names, *(f"{name}_mask" for name in names)]
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values()):
        return tuple(every)
    taken = tuple(name for name in every if name in parameters)
    left = [
        name
        for name, each in parameters.items()
        if name not in every and each.default is each.empty and each.kind is not inspect.Parameter.VAR_POSITIONAL
    ]
    if left or not set(names) <= set(taken):
        raise ValueError(
            f"{type(model).__name__}.forward should take {', '.join(names)}, each by its name (and, if it likes, "
            f"{names[0]}_mask and so on), or `batch`, or the model should have a method `read(batch)`. "
            f"Found forward({', '.join(parameters)})."
        )
    return taken
