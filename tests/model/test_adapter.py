"""LoRA: where it goes, in which dtype, and that PEFT alone reads what was written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import GPT2Config, GPT2LMHeadModel

from r1core.api import UserError
from r1core.model.adapter import adapter_tensors, add_lora, linear_names, load_lora, set_adapter_tensors
from r1core.recipe.training import Adapter
from r1core.testing.tiny import tiny_model

IDS = torch.tensor([[5, 6, 7, 8]])
BLOCK = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


def trainable(model: PeftModel) -> dict[str, torch.nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def trained(**options: object) -> PeftModel:
    """An adapter that does something: LoRA starts with a zero half."""
    model = add_lora(tiny_model().requires_grad_(False), Adapter(rank=4, **options), seed=3)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    for parameter in trainable(model).values():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) / 10)
    return model.eval()


def test_all_linear_is_every_linear_layer_of_the_blocks_and_never_the_head() -> None:
    assert linear_names(tiny_model()) == BLOCK
    names = trainable(add_lora(tiny_model(), Adapter(rank=4), seed=0))
    assert len(names) == 2 * 2 * len(BLOCK)
    assert not any("lm_head" in name or "embed" in name for name in names)
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2))
    assert linear_names(gpt2) == ["c_attn", "c_fc", "c_proj"]


def test_blocks_below_first_layer_stay_untouched() -> None:
    names = trainable(add_lora(tiny_model(), Adapter(rank=4, first_layer=1), seed=0))
    assert len(names) == 2 * len(BLOCK)
    assert all(".layers.1." in name for name in names)
    with pytest.raises(UserError, match=r"adapter\.first_layer = 2: the model has 2 blocks"):
        add_lora(tiny_model(), Adapter(first_layer=2), seed=0)


def test_trainables_are_fp32_over_a_bf16_base() -> None:
    model = add_lora(tiny_model().to(torch.bfloat16).requires_grad_(False), Adapter(rank=4), seed=0)
    assert {p.dtype for p in trainable(model).values()} == {torch.float32}
    assert {p.dtype for n, p in model.named_parameters() if not p.requires_grad} == {torch.bfloat16}


def test_the_start_is_the_base_to_the_bit_and_comes_from_the_seed() -> None:
    state = torch.get_rng_state()
    models = [add_lora(tiny_model(), Adapter(rank=4), seed=s).eval() for s in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    one, two, three = (adapter_tensors(m) for m in models)
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert not all(torch.equal(one[k], three[k]) for k in one)
    assert torch.equal(models[0](IDS).logits, tiny_model()(IDS).logits)


@pytest.mark.parametrize(
    "targets", [["q_porj"], ["q_proj", "q_porj"], ["lm_head"], ["q_proj", "lm_head"], ["proj"], []]
)
def test_targets_that_are_not_in_the_blocks_are_refused(targets: list[str]) -> None:
    with pytest.raises(UserError, match=r"adapter\.targets: found") as refused:
        add_lora(tiny_model(), Adapter(targets=targets), seed=0)
    assert "q_proj" in refused.value.fix


def test_targets_by_name_and_by_path() -> None:
    names = trainable(add_lora(tiny_model(), Adapter(targets=["q_proj", "mlp.up_proj"]), seed=0))
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in names} == {"q_proj", "up_proj"}


def test_peft_alone_reads_what_was_saved(tmp_path: Path) -> None:
    model = trained()
    expected = model(IDS).logits
    assert not torch.allclose(expected, tiny_model()(IDS).logits)
    model.save_pretrained(str(tmp_path))
    assert torch.equal(PeftModel.from_pretrained(tiny_model(), str(tmp_path)).eval()(IDS).logits, expected)
    ours = load_lora(tiny_model(), tmp_path).eval()
    assert torch.equal(ours(IDS).logits, expected)
    with ours.disable_adapter():
        assert torch.equal(ours(IDS).logits, tiny_model()(IDS).logits)


def test_tensors_travel_between_models_and_must_fit() -> None:
    source, target = trained(), add_lora(tiny_model(), Adapter(rank=4), seed=0).eval()
    tensors = adapter_tensors(source)
    set_adapter_tensors(target, tensors)
    assert torch.equal(target(IDS).logits, source(IDS).logits)
    first = next(iter(tensors))
    with pytest.raises(UserError, match=r"missing \['base_model.*left over \['other'\]"):
        set_adapter_tensors(target, {k: v for k, v in tensors.items() if k != first} | {"other": tensors[first]})
    with pytest.raises(UserError, match=r"is \(8, 32\), expected \(4, 32\)"):
        set_adapter_tensors(target, adapter_tensors(add_lora(tiny_model(), Adapter(rank=8), seed=0)))


def test_a_folder_without_an_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no adapter here") as refused:
        load_lora(tiny_model(), tmp_path)
    assert "r1core train" in refused.value.fix
