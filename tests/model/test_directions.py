"""Where A starts, against numpy's singular vectors of inputs that are read prompt by prompt, without padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peft.tuners.lora import LoraLayer

from r1core.api import UserError
from r1core.model.adapted import Adapted
from r1core.model.adapter import add_adapter
from r1core.model.directions import SIZE, spread, start_at_directions
from r1core.recipe.training import Adapter
from r1core.testing.tiny import tiny_model

RANK = 3
PROMPTS = [np.random.default_rng(n).integers(10, 399, size=3 + n % 5).tolist() for n in range(150)]


def adapted(**adapter: object) -> Adapted:
    given = Adapter(**{"rank": RANK, **adapter})  # type: ignore[arg-type]
    return add_adapter(tiny_model().requires_grad_(False), given, seed=0)


def layers_of(made: Adapted) -> dict[str, LoraLayer]:
    return {name: module for name, module in made.model.named_modules() if isinstance(module, LoraLayer)}


def inputs(made: Adapted) -> dict[str, np.ndarray]:
    """What each layer reads at the last token of each prompt, (prompts, I)."""
    found: dict[str, list[torch.Tensor]] = {}
    handles = [
        module.register_forward_pre_hook(lambda _, given, name=name: found.setdefault(name, []).append(given[0][0, -1]))
        for name, module in layers_of(made).items()
    ]
    with torch.no_grad():
        for prompt in PROMPTS:
            made.model(input_ids=torch.tensor([prompt]))
    for handle in handles:
        handle.remove()
    return {name: torch.stack(rows).double().numpy() for name, rows in found.items()}


@pytest.mark.parametrize("kind", ["lora", "rslora"])
def test_features_are_the_leading_ones_and_of_one_size(kind: str) -> None:
    made = adapted(kind=kind)
    start_at_directions(made.model, PROMPTS)
    for name, x in inputs(made).items():
        down = layers_of(made)[name].lora_A["default"].weight.detach().double().numpy()
        features = x @ down.T
        sizes = features.T @ features / len(x)
        values = np.linalg.svd(x, compute_uv=False) ** 2 / len(x)
        expected = SIZE**2 * values[:RANK] / (values[:RANK] + 1e-4 * values[0])  # less the ridge
        assert np.allclose(np.diag(sizes), expected, rtol=1e-3), name
        assert np.allclose(sizes - np.diag(np.diag(sizes)), 0.0, atol=2e-3), name
        top = np.linalg.svd(x)[2][:RANK]
        unit = down / np.linalg.norm(down, axis=1, keepdims=True)
        assert np.allclose(np.abs(np.sum(unit * top, axis=1)), 1.0, atol=1e-3), name


def test_the_model_still_gives_what_its_base_gives() -> None:
    made = adapted()
    ids = torch.tensor([PROMPTS[0]])
    before = made.model(input_ids=ids).logits
    random = {name: layer.lora_A["default"].weight.clone() for name, layer in layers_of(made).items()}
    start_at_directions(made.model, PROMPTS)
    assert torch.equal(made.model(input_ids=ids).logits, before)
    assert all(not torch.equal(layer.lora_A["default"].weight, random[n]) for n, layer in layers_of(made).items())


def test_a_start_is_the_same_each_time() -> None:
    one, other = adapted(), adapted()
    start_at_directions(one.model, PROMPTS)
    start_at_directions(other.model, PROMPTS[::-1])
    again = layers_of(other)
    for name, layer in layers_of(one).items():
        assert torch.allclose(layer.lora_A["default"].weight, again[name].lora_A["default"].weight, atol=1e-4)


def test_a_rank_above_the_width_and_no_prompts_are_refused() -> None:
    with pytest.raises(UserError, match=r"reads \d+ values"):
        start_at_directions(adapted(rank=5000).model, PROMPTS)
    with pytest.raises(UserError, match="nothing to measure"):
        start_at_directions(adapted().model, [])


def test_prompts_are_read_evenly_spaced() -> None:
    assert spread(3, 5) == [0, 1, 2]
    assert spread(10, 5) == [0, 2, 4, 6, 8]
