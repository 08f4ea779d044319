"""A Whisper model that knows two words: a low tone is "low", a high one "high". Trained in seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.features.clips import Sound, tone

SECONDS = 4  # that the model reads at once
HERTZ = {"low": 300.0, "high": 2000.0}
_SPECIAL = [
    "startoftranscript",
    "en",
    "translate",
    "transcribe",
    "startoflm",
    "startofprev",
    "nospeech",
    "notimestamps",
]


def write_whisper(folder: Path) -> Path:
    """Train the model and save it as Transformers does."""
    import transformers

    library: Any = transformers  # its own types are half there
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(folder)
    extractor = library.WhisperFeatureExtractor(feature_size=16, chunk_length=SECONDS)
    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in (*_SPECIAL, "endoftext", "0.00", "4.00")}
    torch.manual_seed(0)
    config = library.WhisperConfig(
        vocab_size=len(tokenizer), num_mel_bins=16, d_model=32, max_source_positions=50 * SECONDS,
        max_target_positions=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, pad_token_id=ids["endoftext"],
        bos_token_id=ids["endoftext"], eos_token_id=ids["endoftext"], suppress_tokens=None, begin_suppress_tokens=None,
        decoder_start_token_id=ids["startoftranscript"], attn_implementation="eager",
    )  # fmt: skip
    model = library.WhisperForConditionalGeneration(config)
    _train(model, extractor, tokenizer, ids)
    model.generation_config = library.GenerationConfig(
        decoder_start_token_id=ids["startoftranscript"], eos_token_id=ids["endoftext"], pad_token_id=ids["endoftext"],
        bos_token_id=ids["endoftext"], no_timestamps_token_id=ids["notimestamps"], prev_sot_token_id=ids["startofprev"],
        is_multilingual=False, max_length=16, return_timestamps=False, max_initial_timestamp_index=50,
        alignment_heads=[[0, 0]],
    )  # fmt: skip
    model.save_pretrained(folder)
    library.WhisperProcessor(extractor, tokenizer).save_pretrained(folder)
    return folder


def _tokenizer(folder: Path) -> Any:
    from transformers import WhisperTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    vocabulary = {letter: number for number, letter in enumerate(bytes_to_unicode().values())}  # type: ignore[no-untyped-call]
    merges = []
    for word in HERTZ:
        known = "Ġ"
        for letter in word:
            merges.append(f"{known} {letter}")
            known += letter
            vocabulary[known] = len(vocabulary)
    vocabulary["<|endoftext|>"] = len(vocabulary)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    tokenizer: Any = WhisperTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer.add_special_tokens({"additional_special_tokens": [f"<|{name}|>" for name in _SPECIAL]})
    tokenizer.add_tokens([f"<|{step * 0.02:.2f}|>" for step in range(1501)])
    return tokenizer


def _train(model: Any, extractor: Any, tokenizer: Any, ids: dict[str, int]) -> None:
    generator = np.random.default_rng(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    words = {name: tokenizer.convert_tokens_to_ids(f"Ġ{name}") for name in HERTZ}
    for step in range(40):
        names = list(HERTZ) * 2
        sounds = [_one_word(HERTZ[name], generator) for name in names]
        features = extractor(sounds, sampling_rate=16000, return_tensors="pt").input_features
        if step % 2:
            targets = [[ids["0.00"], words[name], ids["4.00"], ids["endoftext"]] for name in names]
        else:
            targets = [[ids["notimestamps"], words[name], ids["endoftext"], ids["endoftext"]] for name in names]
        labels = torch.tensor(targets)
        optimizer.zero_grad()
        # The first token tells which of the two is asked for, and is never learnt.
        inputs = torch.cat([torch.full((len(names), 1), ids["startoftranscript"]), labels[:, :-1]], dim=1)
        logits = model(input_features=features, decoder_input_ids=inputs).logits
        loss: Any = torch.nn.functional.cross_entropy(logits[:, 1:].flatten(0, 1), labels[:, 1:].flatten())
        loss.backward()
        optimizer.step()


def _one_word(hertz: float, generator: np.random.Generator) -> Sound:
    seconds = generator.uniform(0.8, 3.0)
    sound = np.concatenate([np.zeros(round(generator.uniform(0, 0.8) * 16000), np.float32), tone(seconds, hertz=hertz)])
    return np.asarray(sound * generator.uniform(0.3, 1.0), np.float32)
