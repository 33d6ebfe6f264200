"""Merged models against the adapted ones, read by plain transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from r1core.api import UserError
from r1core.model.adapter import add_adapter
from r1core.model.load import load_model
from r1core.model.merge import MARK, merge
from r1core.model.resolve import BaseModel
from r1core.recipe.strategy import Strategy
from r1core.recipe.training import Adapter
from r1core.testing.tiny import tiny_model_dir, tiny_tokenizer

IDS = torch.tensor([[5, 6, 7, 8, 9, 30]])
FULL = {"mode": "full"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    folder = tiny_model_dir(tmp_path_factory.mktemp("base") / "tiny")
    return BaseModel("tiny", "0" * 64, None, str(folder))


@torch.no_grad()
def saved(base: BaseModel, folder: Path, kind: str = "lora", **roles: Any) -> torch.Tensor:
    """Save an adapter that does something, and return the adapted model's logits."""
    model = load_model(base, precision="fp32", attention="sdpa")
    adapter = Adapter(rank=4, kind=kind)  # type: ignore[arg-type]
    adapted = add_adapter(model, adapter, seed=0, strategy=Strategy.model_validate(roles))
    generator = torch.Generator().manual_seed(1)
    for one in adapted.trained():
        one.parameter.add_(torch.randn(one.parameter.shape, generator=generator) / 10)
    folder.mkdir(exist_ok=True)
    adapted.save(folder)
    logits: torch.Tensor = adapted.model.eval()(IDS).logits
    return logits


@pytest.mark.parametrize(
    ("kind", "roles"),
    [
        ("lora", {}),
        ("rslora", {}),
        ("dora", {}),
        ("lora", {"norms": FULL, "shallow_attention": FULL}),
        ("lora", {"output": FULL, "untie": True}),
        ("lora", {"embeddings": FULL, "untie": True}),
        ("dora", {"output": {"mode": "lora"}, "untie": True}),
    ],
)
def test_plain_transformers_gives_the_adapted_models_logits(
    kind: str, roles: dict[str, Any], base: BaseModel, tmp_path: Path
) -> None:
    expected = saved(base, tmp_path / "adapter", kind, **roles)
    out = tmp_path / "deep" / "merged"
    assert merge(base, tmp_path / "adapter", tiny_tokenizer(), out) == "float32"
    plain = AutoModelForCausalLM.from_pretrained(out).eval()
    with torch.no_grad():
        found = plain(IDS).logits
    assert float((found - expected).norm() / expected.norm()) < 1e-5
    assert not torch.allclose(found, AutoModelForCausalLM.from_pretrained(base.location)(IDS).logits, atol=0.01)
    names = {path.name for path in out.iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", MARK} <= names
    assert not any("adapter" in name for name in names)
    assert AutoTokenizer.from_pretrained(out)("chest pain").input_ids == tiny_tokenizer()("chest pain").input_ids
    stated = json.loads((out / MARK).read_text())
    assert set(stated["adapter"]) == {path.name for path in (tmp_path / "adapter").iterdir()}


def test_precision(base: BaseModel, tmp_path: Path) -> None:
    expected = saved(base, tmp_path / "adapter")
    assert merge(base, tmp_path / "adapter", tiny_tokenizer(), tmp_path / "out", precision="bf16") == "bfloat16"
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert plain.dtype == torch.bfloat16
    with torch.no_grad():
        found = plain.float()(IDS).logits
    assert float((found - expected).norm() / expected.norm()) < 0.05


def test_it_is_written_again_over_itself_and_over_nothing_else(base: BaseModel, tmp_path: Path) -> None:
    saved(base, tmp_path / "adapter")
    (tmp_path / "out").mkdir()
    for _ in range(2):
        merge(base, tmp_path / "adapter", tiny_tokenizer(), tmp_path / "out")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for place in ("home", "file"):
        with pytest.raises(UserError, match="did not write it"):
            merge(base, tmp_path / "adapter", tiny_tokenizer(), tmp_path / place)
    assert (tmp_path / "home" / "letter.txt").read_text() == "mine"


def test_what_no_plain_model_holds_is_refused_by_name(base: BaseModel, tmp_path: Path) -> None:
    saved(base, tmp_path / "gelu", "gelu_lora")
    with pytest.raises(UserError, match=r'adapter\.kind = "gelu_lora" cannot be merged: .*not linear'):
        merge(base, tmp_path / "gelu", tiny_tokenizer(), tmp_path / "out")
    (tmp_path / "gelu" / "r1core_adapter.json").write_text('{"format": 1, "kind": "pool"}')
    with pytest.raises(UserError, match=r'adapter\.kind = "pool" cannot be merged'):
        merge(base, tmp_path / "gelu", tiny_tokenizer(), tmp_path / "out")
    saved(base, tmp_path / "adapter")
    (tmp_path / "adapter" / "r1core_layers.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="extra layers"):
        merge(base, tmp_path / "adapter", tiny_tokenizer(), tmp_path / "out")
    assert not (tmp_path / "out").exists()
