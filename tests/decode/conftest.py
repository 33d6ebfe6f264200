"""Tiny tokenizers of both families, built in code, and runs that were never trained but can be opened."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from r1core.model.adapter import add_adapter
from r1core.model.layers import ExtraLayers
from r1core.model.load import load_model
from r1core.selection import Selection
from r1core.testing.tiny import tiny_tokenizer
from r1core.workbench import Workbench, open_bench


def sentencepiece() -> Any:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "▁", "a", "b", "▁a", "▁ab", "ab", "é"]
    merges = [("▁", "a"), ("a", "b"), ("▁a", "b")]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    model = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    model.normalizer = normalizers.Replace(" ", "▁")
    model.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=model, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@pytest.fixture(scope="session")
def byte_level_tokenizer() -> Any:
    return tiny_tokenizer()


@pytest.fixture(scope="session")
def sentencepiece_tokenizer() -> Any:
    return sentencepiece()


def open_heart(folder: Path, model: Path, plugin: str, tables: str) -> Workbench:
    """A run on one record with the plugin `heart`, whose source is `plugin`; `tables` go into the recipe."""
    (folder / "heart.py").write_text(plugin)
    (folder / "d.jsonl").write_text(json.dumps({"text": "heart", "answer": "Cardiology"}))
    (folder / "recipe.toml").write_text(
        f'[run]\nname = "own"\n[model]\npath = "{model}"\n{tables}\n[data.files]\ntrain = "d.jsonl"\n'
    )
    return open_bench(Selection(recipe=folder / "recipe.toml", run=folder / "run", files=(folder / "heart.py",)))


def save_adapter(bench: Workbench, change: Callable[[Any, ExtraLayers], None] | None = None) -> None:
    """Write adapter and layers as training would, untrained but for what `change(model, layers)` does to them."""
    base = load_model(bench.base, precision="fp32", attention="sdpa")
    adapted = add_adapter(base, bench.recipe.adapter, 0, strategy=bench.recipe.strategy)
    layers = ExtraLayers(base, bench.layer_specs(base.config), 0)
    if change is not None:
        change(adapted.model, layers)
    bench.run.adapter.mkdir(parents=True)
    adapted.save(bench.run.adapter)
    layers.save(bench.run.adapter)
