"""A saved adapter taken up for further training: every trained weight is as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from r1core.api import UserError
from r1core.model.adapter import add_adapter, stored_tensors
from r1core.recipe.strategy import Strategy
from r1core.recipe.training import Adapter
from r1core.testing.tiny import tiny_model

IDS = torch.tensor([[5, 6, 7, 8]])
FULL = Strategy.model_validate({"untie": True, "norms": {"mode": "full"}, "output": {"mode": "full"}})


@pytest.mark.parametrize(
    ("kind", "strategy"),
    [*((kind, None) for kind in ("lora", "rslora", "dora", "gelu_lora")), ("lora", FULL)],
    ids=["lora", "rslora", "dora", "gelu_lora", "trained in full"],
)
def test_training_goes_on_from_the_very_weights(kind: str, strategy: Strategy | None, tmp_path: Path) -> None:
    adapter = Adapter(kind=kind, rank=4)  # type: ignore[arg-type]
    before = add_adapter(tiny_model().requires_grad_(False), adapter, seed=0, strategy=strategy)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for one in before.trained():
            one.parameter.add_(torch.randn(one.parameter.shape, generator=generator) / 10)
    before.save(tmp_path)
    after = add_adapter(tiny_model().requires_grad_(False), adapter, seed=9, strategy=strategy)
    after.load(stored_tensors(tmp_path))
    pairs = list(zip(before.trained(), after.trained(), strict=True))
    assert pairs
    for one, other in pairs:
        assert one.name == other.name
        assert torch.equal(one.parameter, other.parameter), one.name
        assert other.parameter.requires_grad
    assert torch.equal(before.model.eval()(IDS).logits, after.model.eval()(IDS).logits)


def test_a_folder_without_an_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no adapter here"):
        stored_tensors(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"garbage")
    with pytest.raises(UserError, match="cannot be read"):
        stored_tensors(tmp_path)
