"""Extra layers at their sites: nothing at step 0, something afterwards, never a look ahead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from r1core.api import LayerSpec, PluginError, SlotFeatures, UserError
from r1core.model.layers import ExtraLayers, site_module
from r1core.model.own_files import LAYERS
from r1core.testing.tiny import tiny_model

SITES = ("embedding", "block:0", "block:1", "block:-1", "head")
KIND = "t/k"
IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11]])
Features = Mapping[str, SlotFeatures]


class Marks(nn.Module):
    """Adds a learned vector, scaled by the span's number, at the tokens of each span."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.randn(width))

    def forward(self, hidden: torch.Tensor, features: Features) -> torch.Tensor:
        slots = features[KIND]
        place = torch.arange(hidden.shape[1]).view(1, -1, 1)
        covered = (place >= slots.start[:, None]) & (place < slots.end[:, None]) & slots.mask[:, None]
        return (covered * slots.values[..., 0][:, None]).sum(-1, keepdim=True) * self.vector


def features(*spans: tuple[int, int, float]) -> dict[str, SlotFeatures]:
    return {
        KIND: SlotFeatures(
            start=torch.tensor([[s[0] for s in spans]], dtype=torch.int64),
            end=torch.tensor([[s[1] for s in spans]], dtype=torch.int64),
            values=torch.tensor([s[2] for s in spans]).reshape(1, len(spans), 1),
            mask=torch.ones(1, len(spans), dtype=torch.bool),
        )
    }


def spec(site: str, factory: Callable[[int], nn.Module] = Marks, name: str = "acme/marks") -> LayerSpec:
    return LayerSpec(name=name, site=site, factory=factory, kinds=(KIND,))


@torch.no_grad()
def opened(layers: ExtraLayers) -> ExtraLayers:
    for layer in layers.layers:
        layer.gate.fill_(0.7)  # type: ignore[union-attr, operator]
    return layers


@torch.no_grad()
def logits(
    model: nn.Module, layers: ExtraLayers | None, spans: Features | None, ids: torch.Tensor = IDS
) -> torch.Tensor:
    if layers is None:
        return model(input_ids=ids).logits
    with layers.using(spans):
        return model(input_ids=ids).logits


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_step_0_is_the_base_to_the_bit(site: str, dtype: torch.dtype) -> None:
    base = logits(tiny_model().to(dtype), None, None)
    model = tiny_model().to(dtype)
    layers = ExtraLayers(model, [spec(site)], seed=1)
    assert torch.equal(logits(model, layers, features((1, 3, 2.0))), base)
    assert all(p.dtype == torch.float32 for p in layers.parameters())


@pytest.mark.parametrize("site", SITES)
def test_an_open_gate_changes_the_logits_from_the_span_on_and_never_before(site: str) -> None:
    model = tiny_model()
    base = logits(model, None, None)
    layers = opened(ExtraLayers(model, [spec(site)], seed=1))
    changed = logits(model, layers, features((3, 5, 2.0)))
    assert torch.equal(changed[:, :3], base[:, :3])
    assert not torch.allclose(changed[:, 3:], base[:, 3:])
    assert torch.equal(logits(model, layers, None), base)  # switched off
    layers.enabled = False
    assert torch.equal(logits(model, layers, features((3, 5, 2.0))), base)


@pytest.mark.parametrize("site", SITES)
def test_text_behind_a_position_does_not_reach_it(site: str) -> None:
    model = tiny_model()
    layers = opened(ExtraLayers(model, [spec(site)], seed=1))
    before = logits(model, layers, features((1, 3, 2.0)))
    other = IDS.clone()
    other[:, 4:] = torch.tensor([50, 51, 52])
    after = logits(model, layers, features((1, 3, 2.0)), other)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.equal(before[:, 4:], after[:, 4:])


@pytest.mark.parametrize("site", SITES)
def test_the_site_is_where_its_name_says(site: str) -> None:
    """Against the hidden states that transformers itself reports."""
    model = tiny_model()
    seen: list[torch.Tensor] = []

    class Watch(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()

        def forward(self, hidden: torch.Tensor, features: Features) -> torch.Tensor:
            seen.append(hidden)
            return torch.zeros_like(hidden)

    layers = ExtraLayers(model, [spec(site, Watch)], seed=1)
    with torch.no_grad(), layers.using(features()):
        model(input_ids=IDS)
        inner = model.model
        states = [inner.embed_tokens(IDS)]
        for block in inner.layers:
            place = torch.arange(IDS.shape[1])[None]
            states.append(block(states[-1], position_embeddings=inner.rotary_emb(states[-1], place)))
        states.append(inner.norm(states[-1]))
    expected = {"embedding": 0, "block:0": 1, "block:1": 2, "block:-1": 2, "head": 3}[site]
    assert torch.allclose(seen[0], states[expected], atol=1e-5)


@pytest.mark.parametrize(
    ("site", "said"),
    [
        ("block:2", "the model has 2 blocks"),
        ("block:-3", "the model has 2 blocks"),
        ("block:x", "is not in LlamaForCausalLM"),
        ("block:--1", "is not in LlamaForCausalLM"),
        ("block:²", "is not in LlamaForCausalLM"),
        ("block:", "is not in LlamaForCausalLM"),
        ("tail", "is not in LlamaForCausalLM"),
    ],
)
def test_a_site_that_is_not_there(site: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        ExtraLayers(tiny_model(), [spec(site)], seed=1)
    assert "block:" in refused.value.fix


def test_sites_of_another_architecture() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2)).eval()
    assert site_module(model, "embedding") is model.transformer.wte
    assert site_module(model, "block:1") is model.transformer.h[1]
    assert site_module(model, "head") is model.transformer.ln_f
    base = logits(model, None, None)
    layers = ExtraLayers(model, [spec(site, name=f"acme/{i}") for i, site in enumerate(SITES)], seed=1)
    assert torch.equal(logits(model, layers, features((1, 3, 2.0))), base)
    assert not torch.equal(logits(model, opened(layers), features((1, 3, 2.0))), base)


def test_weights_come_back_from_their_file(tmp_path: Path) -> None:
    model = tiny_model()
    layers = opened(ExtraLayers(model, [spec("block:0"), spec("head", name="acme/top")], seed=1))
    expected = logits(model, layers, features((1, 3, 2.0)))
    layers.save(tmp_path)
    saved = load_file(tmp_path / LAYERS)
    assert sorted(saved) == ["acme/marks:gate", "acme/marks:inner.vector", "acme/top:gate", "acme/top:inner.vector"]
    other = tiny_model()
    fresh = ExtraLayers(other, [spec("head", name="acme/top"), spec("block:0")], seed=9)  # another order, other weights
    with torch.no_grad():
        fresh.load(saved)
    assert torch.allclose(logits(other, fresh, features((1, 3, 2.0))), expected, atol=1e-6)
    assert fresh.names() == ["acme/top", "acme/marks"]


def test_weights_that_do_not_fit_are_refused() -> None:
    layers = ExtraLayers(tiny_model(), [spec("head")], seed=1)
    tensors = layers.tensors()
    with pytest.raises(UserError, match=r"missing \['acme/marks:gate'.*left over \[\]"):
        layers.load({})
    with pytest.raises(UserError, match="left over \\['acme/other:gate'\\]"):
        layers.load({**tensors, "acme/other:gate": torch.zeros(1)})
    with pytest.raises(UserError, match=r"acme/marks:gate is \(3,\), expected \(32,\)"):
        layers.load({**tensors, "acme/marks:gate": torch.zeros(3)})


def test_no_layer_leaves_no_file(tmp_path: Path) -> None:
    ExtraLayers(tiny_model(), [], seed=1).save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_equal_seeds_give_equal_weights_and_leave_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    one, two, three = (ExtraLayers(tiny_model(), [spec("head")], seed=s).tensors() for s in (4, 4, 5))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one["acme/marks:inner.vector"], two["acme/marks:inner.vector"])
    assert not torch.equal(one["acme/marks:inner.vector"], three["acme/marks:inner.vector"])


def raises(hidden: torch.Tensor) -> torch.Tensor:
    raise ZeroDivisionError("by nothing")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (raises, "by nothing"),
        (lambda hidden: hidden[..., :3], r"returned shape \(1, 7, 3\), expected \(1, 7, 32\)"),
        (lambda hidden: None, "returned NoneType"),
    ],
)
def test_a_layer_that_fails_is_named(answer: Callable[[torch.Tensor], torch.Tensor], said: str) -> None:
    class Broken(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()

        def forward(self, hidden: torch.Tensor, features: Features) -> torch.Tensor:
            return answer(hidden)

    model = tiny_model()
    layers = ExtraLayers(model, [spec("block:0", Broken)], seed=1)
    with pytest.raises(PluginError, match=f"plugin 'acme' failed in hook 'extra_layer': acme/marks: {said}"):
        logits(model, layers, features())
    assert torch.equal(logits(model, layers, None), logits(tiny_model(), None, None))  # nothing is left switched on


def test_a_layer_whose_spans_nobody_writes_is_named() -> None:
    model = tiny_model()
    layers = ExtraLayers(model, [spec("block:0")], seed=1)
    with pytest.raises(PluginError, match="acme/marks: 't/k'"):
        logits(model, layers, {})


@torch.no_grad()
def test_cached_steps_equal_one_pass_with_the_layer_on() -> None:
    model = tiny_model()
    layers = opened(ExtraLayers(model, [spec(site, name=f"acme/{i}") for i, site in enumerate(SITES)], seed=1))
    whole = logits(model, layers, features((1, 3, 2.0)))
    with layers.using(features((1, 3, 2.0))):
        first = model(input_ids=IDS[:, :4], use_cache=True)
    steps, cache = [first.logits], first.past_key_values
    for place in range(4, IDS.shape[1]):
        with layers.using(features()):
            steps.append(model(input_ids=IDS[:, place : place + 1], past_key_values=cache, use_cache=True).logits)
    assert torch.allclose(torch.cat(steps, 1), whole, atol=1e-5)


def test_a_layers_own_loss_is_seen_inside_the_pass_only() -> None:
    model = tiny_model()
    loss = LayerSpec("acme/marks", "head", Marks, (KIND,), loss=lambda inner, hidden, spans: hidden.sum((1, 2)))
    layers = ExtraLayers(model, [loss], seed=1)
    with layers.using(features()):
        model(input_ids=IDS)
        assert layers.losses()["acme/marks"].shape == (1,)
    assert layers.losses() == {}
