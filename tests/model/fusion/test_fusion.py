"""The fusion layer: its stages against NumPy, nothing at step 0, and no look at another row's image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from r1core.api import SlotFeatures
from r1core.data.images import IMAGE
from r1core.data.packing import pack_rows
from r1core.data.tokens import Encoded, Slot
from r1core.model.fusion.attach import fusion_specs
from r1core.model.fusion.cross import CrossAttention, seed_attention
from r1core.model.fusion.fusion import GAIN, Fusion
from r1core.model.fusion.sight import Sight
from r1core.model.fusion.tower import Tower
from r1core.model.fusion.weighting import Weighting
from r1core.model.layers import ExtraLayers
from r1core.recipe.vision import Mode
from r1core.testing.tiny import HIDDEN, tiny_model
from r1core.testing.tiny_tower import SIZE, WIDTH, tiny_encoder

IMAGES = torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3)) * 2 - 1
IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11]])
MODES: tuple[Mode, ...] = ("seed", "fusion")


class Counted(Tower):
    calls = 0

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        self.calls += len(pixels)
        return super().forward(pixels)


def sight(*, trained: bool = False) -> Sight:
    made = Sight(Counted(tiny_encoder(), (SIZE, SIZE)), lambda numbers: IMAGES[list(numbers)], trained=trained)
    made.tower.calls = 0  # type: ignore[assignment]
    return made


def slots(*given: tuple[int, int, int], rows: int = 1) -> dict[str, SlotFeatures]:
    """Slots `(start, end, image)` of one sequence."""
    start, end, numbers = (torch.tensor([[one[i] for one in given]], dtype=torch.int64) for i in range(3))
    mask = torch.ones(1, len(given), dtype=torch.bool)
    return {IMAGE.name: SlotFeatures(start, end, numbers[..., None].float(), mask)}


def attached(
    mode: Mode = "fusion", sites: Sequence[str] = ("block:0", "block:1"), *, trained: bool = False, opened: bool = True
) -> tuple[torch.nn.Module, ExtraLayers, Sight]:
    model, seen = tiny_model(), sight(trained=trained)
    layers = ExtraLayers(model, fusion_specs(lambda: seen, sites, mode, trained=trained), seed=1)
    with torch.no_grad():
        for layer in layers.layers if opened else ():
            layer.gate.fill_(0.5)  # type: ignore[union-attr, operator]
    return model, layers, seen


@torch.no_grad()
def logits(model: torch.nn.Module, layers: ExtraLayers, features: object, ids: torch.Tensor = IDS) -> torch.Tensor:
    with layers.using(features):  # type: ignore[arg-type]
        return model(input_ids=ids).logits


def norm(x: np.ndarray, weight: torch.Tensor, bias: torch.Tensor) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * weight.numpy() + bias.numpy()


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_seed_mode_is_its_formula_on_the_projections() -> None:
    layer = Fusion(HIDDEN, sight(), "seed")
    generator = torch.Generator().manual_seed(0)
    text, image = torch.randn(2, 5, 768, generator=generator), torch.randn(2, 9, 768, generator=generator)
    t, i = text.double().numpy(), image.double().numpy()
    expected = softmax(t @ i.transpose(0, 2, 1) / math.sqrt(768)) @ i + t
    assert np.abs(layer.fused(text, image).numpy() - expected).max() <= 1e-6 * np.abs(expected).max()
    assert np.abs(layer.fused(text.double(), image.double()).numpy() - expected).max() <= 1e-12


@torch.no_grad()
def test_a_seed_layer_is_two_projections_the_formula_and_a_way_back() -> None:
    seen = sight()
    layer = Fusion(HIDDEN, seen, "seed").double()
    torch.nn.init.normal_(layer.projection.text_norm.weight)
    hidden = torch.randn(1, 6, HIDDEN, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    seen.tower.double()
    patches = seen.tower.encoder(pixel_values=IMAGES[2:3].double()).last_hidden_state[0].numpy()
    part = layer.projection
    t = norm(hidden[0].numpy(), part.text_norm.weight, part.text_norm.bias) @ part.text_map.weight.numpy().T
    t += part.text_map.bias.numpy()
    i = norm(patches, part.image_norm.weight, part.image_norm.bias) @ part.image_map.weight.numpy().T
    i += part.image_map.bias.numpy()
    back = layer.out.weight.numpy().T, layer.out.bias.numpy()
    loud = np.sqrt((hidden[0].numpy() ** 2).mean(-1, keepdims=True))
    expected = GAIN * loud * ((softmax(t @ i.T / math.sqrt(768)) @ i + t) @ back[0] + back[1])
    seen._pixels = lambda numbers: IMAGES[list(numbers)].double()
    assert np.abs(layer(hidden, slots((0, 6, 2)))[0].numpy() - expected).max() < 1e-9


@torch.no_grad()
@pytest.mark.parametrize("mode", MODES)
def test_what_is_added_is_as_loud_as_the_hidden_state(mode: Mode) -> None:
    layer = Fusion(HIDDEN, sight(), mode)
    hidden = torch.randn(1, 4, HIDDEN, generator=torch.Generator().manual_seed(2))
    one, louder = (layer(hidden * factor, slots((0, 4, 1))) for factor in (1.0, 40.0))
    assert torch.allclose(louder, 40 * one, atol=1e-3 * float(louder.abs().max()))
    assert one.abs().max() > 0.1


@torch.no_grad()
def test_a_closed_image_changes_nothing() -> None:
    layer = Fusion(HIDDEN, sight())
    torch.nn.init.zeros_(layer.cross.mix.weight)
    torch.nn.init.zeros_(layer.cross.mix.bias)
    torch.nn.init.zeros_(layer.out.bias)
    hidden = torch.randn(1, 4, HIDDEN, generator=torch.Generator().manual_seed(2))
    assert layer(hidden, slots((0, 4, 1))).abs().max() < 1e-5


@torch.no_grad()
def test_cross_attention_is_a_loop_over_heads() -> None:
    torch.manual_seed(0)
    cross = CrossAttention(24, 3).double()
    for norms in (cross.text_norm, cross.image_norm):
        torch.nn.init.normal_(norms.weight)
    for norms in (cross.query_norm, cross.key_norm):
        torch.nn.init.normal_(norms.weight)
    torch.nn.init.normal_(cross.gate.weight)
    text, image = torch.randn(1, 4, 24).double(), torch.randn(1, 7, 24).double()
    t = norm(text[0].numpy(), cross.text_norm.weight, cross.text_norm.bias)
    i = norm(image[0].numpy(), cross.image_norm.weight, cross.image_norm.bias)
    q, k, v = t @ cross.query.weight.numpy().T, i @ cross.key.weight.numpy().T, i @ cross.value.weight.numpy().T
    gates = 2 / (1 + np.exp(-(t @ cross.gate.weight.numpy().T + cross.gate.bias.numpy())))
    heads = []
    for head in range(3):
        own = slice(8 * head, 8 * head + 8)
        a, b = (side[:, own] / np.sqrt((side[:, own] ** 2).mean(-1, keepdims=True) + 1e-6) for side in (q, k))
        scores = (a * cross.query_norm.weight.numpy()) @ (b * cross.key_norm.weight.numpy()).T / math.sqrt(8)
        heads.append(softmax(scores) @ v[:, own] * gates[:, head : head + 1])
    expected = np.concatenate(heads, 1) @ cross.mix.weight.numpy().T + cross.mix.bias.numpy()
    assert np.abs(cross(text, image)[0].numpy() - expected).max() < 1e-12


def test_heads_have_to_divide_the_width() -> None:
    with pytest.raises(ValueError, match="7 heads do not divide a width of 24"):
        CrossAttention(24, 7)


@torch.no_grad()
def test_weighting_starts_as_the_sum_and_weighs_each_token() -> None:
    torch.manual_seed(0)
    stage, text, attended = Weighting(16), torch.randn(2, 3, 16), torch.randn(2, 3, 16)
    assert torch.equal(stage(text, attended), text + attended)
    torch.nn.init.normal_(stage.judge.weight)
    weights = stage.weights(text, attended)
    assert torch.allclose(weights.sum(-1), torch.full((2, 3), 2.0))
    assert weights.min() > 0
    assert weights[..., 0].std() > 0.01
    naive = [
        [w[0] * t + w[1] * a for w, t, a in zip(*row, strict=True)] for row in zip(weights, text, attended, strict=True)
    ]
    assert torch.allclose(stage(text, attended), torch.stack([torch.stack(row) for row in naive]))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_step_0_is_the_base_to_the_bit(mode: Mode, dtype: torch.dtype) -> None:
    model, layers, _ = attached(mode, ("embedding", "block:0", "block:-1", "head"), opened=False)
    model.to(dtype)
    assert torch.equal(logits(model, layers, slots((0, 7, 1))), logits(model, layers, None))


@pytest.mark.parametrize("mode", MODES)
def test_the_image_counts_for_the_tokens_that_see_it_and_behind_them(mode: Mode) -> None:
    model, layers, _ = attached(mode)
    without, one, other = (logits(model, layers, given) for given in (None, slots((3, 7, 0)), slots((3, 7, 1))))
    assert torch.equal(one[:, :3], without[:, :3])
    assert torch.equal(one[:, :3], other[:, :3])
    assert (one - other)[:, 3:].abs().amax(-1).min() > 1e-4


@pytest.mark.parametrize("mode", MODES)
def test_a_later_token_changes_nothing_before_it(mode: Mode) -> None:
    model, layers, _ = attached(mode)
    changed = IDS.clone()
    changed[0, 5] = 40
    before, after = (logits(model, layers, slots((0, 7, 0)), ids) for ids in (IDS, changed))
    assert torch.allclose(before[:, :5], after[:, :5], atol=1e-6)
    assert not torch.allclose(before[:, 5:], after[:, 5:], atol=1e-3)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("trained", [True, False])
@torch.no_grad()
def test_token_by_token_is_the_whole_pass(mode: Mode, trained: bool) -> None:
    model, layers, _ = attached(mode, ("embedding", "block:0", "block:-1"), trained=trained)
    whole = logits(model, layers, slots((0, 7, 0), (0, 7, 2)))
    cache, read = None, []
    for part in (IDS[:, :3], *IDS[:, 3:].split(1, 1)):
        with layers.using(slots((0, part.shape[1], 0), (0, part.shape[1], 2))):
            said = model(input_ids=part, past_key_values=cache, use_cache=True)
        cache = said.past_key_values
        read.append(said.logits)
    assert torch.allclose(torch.cat(read, 1), whole, atol=1e-5)


def test_a_row_packed_with_others_sees_its_own_images_only() -> None:
    model, layers, _ = attached()

    def row(ids: tuple[int, ...], *images: int) -> Encoded:
        seen = tuple(Slot(IMAGE.name, 0, len(ids), (float(image),)) for image in images)
        return Encoded("r", ids, (3,), seen)

    rows = [row((5, 6, 7, 8), 0), row((5, 6, 9), 1, 2), row((5, 6, 7, 12, 13)), row((5, 9, 9, 9, 9), 3)]

    def read(batch_of: list[Encoded]) -> torch.Tensor:
        batch = pack_rows(batch_of, {IMAGE.name: IMAGE}, torch.float32)
        with torch.no_grad(), layers.using(batch.features):
            out = model(batch.input_ids, position_ids=batch.position_ids, attention_mask=batch.mask)
        return out.logits[0, batch.where]

    together = read(rows)
    for at, one in enumerate(rows):
        assert torch.allclose(read([one])[0], together[at], atol=1e-5)
    swapped = read([row((5, 6, 7, 8), 3), *rows[1:]])
    assert not torch.allclose(swapped[0], together[0], atol=1e-3)
    assert torch.allclose(swapped[1:], together[1:], atol=1e-5)


@torch.no_grad()
def test_several_images_are_one_set_of_patches() -> None:
    layer = Fusion(HIDDEN, sight())
    torch.nn.init.normal_(layer.cross.gate.weight)
    hidden = torch.randn(1, 4, HIDDEN, generator=torch.Generator().manual_seed(0))
    both, turned = layer(hidden, slots((0, 4, 0), (0, 4, 1))), layer(hidden, slots((0, 4, 1), (0, 4, 0)))
    assert torch.allclose(both, turned, atol=1e-6 * float(both.abs().max()))
    assert not torch.allclose(both, layer(hidden, slots((0, 4, 0))), atol=1e-4)


def test_patches_that_only_fill_up_do_not_count() -> None:
    text, image = torch.randn(1, 3, 8), torch.randn(1, 5, 8)
    real = torch.tensor([[True, True, False, True, False]])
    kept = image[:, real[0]]
    assert torch.allclose(seed_attention(text, image, real), seed_attention(text, kept), atol=1e-6)
    cross = CrossAttention(8, 2)
    assert torch.allclose(cross(text, image, real), cross(text, kept), atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("mode", MODES)
def test_only_fusion_knows_where_a_patch_stands(mode: Mode) -> None:
    seen = sight()
    layer = Fusion(HIDDEN, seen, mode)
    hidden = torch.randn(1, 4, HIDDEN, generator=torch.Generator().manual_seed(0))
    features = seen.tower(IMAGES[:1])
    told = []
    for order in (range(5), (0, 2, 1, 4, 3), (0, 2, 1, 4, 3)):
        seen.features = lambda *_, order=order: features[:, list(order)]  # type: ignore[method-assign]
        told.append(layer(hidden, slots((0, 4, 0))))
    straight, turned, again = told
    assert torch.equal(turned, again)
    assert torch.allclose(straight, turned, atol=1e-5 * float(straight.abs().max())) == (mode == "seed")


def test_without_images_nothing_is_added() -> None:
    model, layers, _ = attached()
    assert torch.equal(logits(model, layers, slots()), logits(model, layers, None))


def test_a_frozen_tower_is_asked_once_an_image_and_is_no_part_of_the_layers() -> None:
    model, layers, seen = attached()
    for _ in range(3):
        logits(model, layers, slots((0, 3, 0), (3, 7, 2)))
    assert seen.tower.calls == 2
    assert not [name for name in layers.tensors() if "tower" in name]
    with layers.using(slots((0, 7, 0))):
        model(input_ids=IDS).logits.sum().backward()
    assert all(p.grad is None for p in seen.tower.parameters())


def test_a_trained_tower_learns_and_is_saved_once_for_all_sites() -> None:
    model, layers, seen = attached(trained=True)
    with layers.using(slots((0, 7, 0))):
        model(input_ids=IDS).logits.square().sum().backward()
    assert seen.tower.calls == 1  # a pass, for both sites
    grads = [p.grad for p in seen.tower.parameters()]
    assert any(g is not None and g.abs().max() > 0 for g in grads)
    names = [name for name in layers.tensors() if "tower" in name]
    assert names
    assert all(name.startswith("r1core/fusion-0:") for name in names)
    before = logits(model, layers, slots((0, 7, 0)))
    with torch.no_grad():
        for parameter in seen.tower.parameters():
            parameter.add_(0.1)
    assert not torch.allclose(logits(model, layers, slots((0, 7, 0))), before, atol=1e-4)


def test_weights_go_to_another_model_and_back() -> None:
    model, layers, _ = attached(trained=True)
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.add_(0.01)
    other, fresh, _ = attached(trained=True, opened=False)
    with torch.no_grad():
        fresh.load(layers.tensors())
    assert torch.equal(logits(model, layers, slots((0, 7, 1))), logits(other, fresh, slots((0, 7, 1))))


@pytest.mark.parametrize("trained", [True, False])
def test_two_passes_over_the_same_slots_have_gradients_of_their_own(trained: bool) -> None:
    model, layers, _ = attached(trained=trained)
    features, found = slots((0, 7, 0)), []
    for _ in range(2):
        layers.zero_grad()
        with layers.using(features):
            model(input_ids=IDS).logits.sum().backward()
        found.append(layers.layers[0].inner.projection.image_map.weight.grad.clone())  # type: ignore[union-attr]
    assert torch.equal(*found)
    assert found[0].abs().max() > 0
    assert found[0].shape == (768, WIDTH)
