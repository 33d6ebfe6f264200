"""LoRA on stacked experts against PEFT's own wrapper, which adds the update to the whole stack."""

from __future__ import annotations

import copy
from pathlib import Path

import peft
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel, Qwen3MoeConfig, Qwen3MoeForCausalLM

from r1core.api import UserError
from r1core.model.adapted import Adapted
from r1core.model.adapter import add_adapter, load_adapter
from r1core.model.expert_lora import factored
from r1core.model.r1.grouped_cpu import experts_cpu
from r1core.model.r1.routed import Learnt, LowRank
from r1core.model.strategy import beside_experts
from r1core.recipe.training import Adapter
from r1core.testing.tiny_r1 import model, tokens

EXPERTS = Adapter(rank=4, alpha=12, targets=["q_proj", "experts"])


def library() -> PreTrainedModel:
    """A small mixture of experts of the library."""
    torch.manual_seed(0)
    return Qwen3MoeForCausalLM(
        Qwen3MoeConfig(
            vocab_size=100, hidden_size=32, intermediate_size=48, moe_intermediate_size=16, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, head_dim=8, num_experts=6, num_experts_per_tok=2,
        )
    ).eval()  # fmt: skip


def trained(adapted: Adapted) -> Adapted:
    """An adapter that says something."""
    draw = torch.Generator().manual_seed(3)
    for name, weight in adapted.model.named_parameters():
        if ".lora_B." in name:
            weight.data = torch.randn(weight.shape, generator=draw) * 0.2
    return adapted


def folded(base: PreTrainedModel, directory: Path) -> PeftModel:
    """The saved adapter as PEFT itself reads and computes it."""
    with pytest.MonkeyPatch.context() as patch:  # PEFT takes shared layers for experts: see r1core.model.peft_adapter
        patch.setattr(
            "peft.utils.transformers_weight_conversion.convert_peft_config_for_transformers", lambda *_, **__: None
        )
        read = PeftModel.from_pretrained(base, str(directory), is_trainable=True).eval()
    wrappers = [module for module in read.modules() if type(module) is peft.tuners.lora.layer.ParamWrapper]
    assert len(wrappers) == 2 * base.config.num_hidden_layers
    return read


@pytest.fixture(params=[model, library], ids=["r1", "qwen3-moe"])
def base(request: pytest.FixtureRequest) -> PreTrainedModel:
    made: PreTrainedModel = request.param()
    return made


def slopes(made: nn.Module, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """Gradients of the adapter's weights, by their names."""
    weights = {name: weight for name, weight in made.named_parameters() if ".lora_" in name}
    found = torch.autograd.grad(made(input_ids=ids).logits.square().mean(), list(weights.values()))
    return dict(zip(weights, found, strict=True))


def test_logits_and_gradients_are_those_of_pefts_wrapper(base: PreTrainedModel, tmp_path: Path) -> None:
    other, ids = copy.deepcopy(base), tokens(3, 17)
    ours = trained(add_adapter(base, EXPERTS, 0))
    ours.save(tmp_path)
    theirs = folded(other, tmp_path)
    logits = ours.model(input_ids=ids).logits
    assert torch.allclose(logits, other(input_ids=ids).logits, atol=1e-5)
    with ours.off():
        assert not torch.allclose(logits, ours.model(input_ids=ids).logits, atol=1e-2)
    found, right = slopes(ours.model, ids), slopes(theirs, ids)
    assert found.keys() == right.keys()
    for name, slope in found.items():
        assert torch.allclose(slope, right[name], rtol=1e-3, atol=1e-6 * float(right[name].abs().max()) + 1e-9), name


def test_a_token_at_a_time_gives_the_same_and_follows_the_weights(base: PreTrainedModel) -> None:
    ours, ids = trained(add_adapter(base, EXPERTS, 0)), tokens(1, 3)
    ours.model.eval()
    for _ in range(2):
        whole = ours.model(input_ids=tokens(1, 3).repeat(12, 1)).logits[:1]
        with torch.no_grad():
            assert torch.allclose(ours.model(input_ids=ids).logits, whole, atol=1e-5)
            for name, weight in ours.model.named_parameters():
                if "experts" in name and ".lora_B." in name:
                    weight.mul_(-2)  # as an optimiser writes


def test_it_starts_as_the_base_and_only_the_adapter_is_trained(base: PreTrainedModel) -> None:
    ids, made = tokens(2, 9), add_adapter(base, EXPERTS, 0)
    with made.off():
        right = made.model(input_ids=ids).logits
    assert torch.equal(made.model(input_ids=ids).logits, right)
    names = [one.name for one in made.trained()]
    assert all(".lora_" in name for name in names)
    assert sum(".experts." in name for name in names) == 4 * base.config.num_hidden_layers


def test_it_is_saved_read_and_merged(base: PreTrainedModel, tmp_path: Path) -> None:
    other, ids = copy.deepcopy(base), tokens(2, 15)
    made = trained(add_adapter(base, EXPERTS.model_copy(update={"dropout": 0.25}), 0))
    made.model.eval()
    logits = made.model(input_ids=ids).logits
    made.save(tmp_path)
    read = load_adapter(other, tmp_path)
    assert torch.allclose(read.model.eval()(input_ids=ids).logits, logits, atol=1e-6)
    assert torch.allclose(read.merged()(input_ids=ids).logits, logits, atol=1e-5)


def test_each_row_of_a_batch_can_have_its_own_adapter(base: PreTrainedModel) -> None:
    stacks = ["experts.gate_up_proj", "experts.down_proj"]
    first = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"], target_parameters=stacks)
    second = LoraConfig(r=2, lora_alpha=16, target_modules=["q_proj"], target_parameters=stacks)
    for config in (first, second):
        factored(config, base)
    made = get_peft_model(base, first, adapter_name="first")
    made.add_adapter("second", second)
    for name, weight in made.named_parameters():
        if ".lora_B." in name:
            nn.init.normal_(weight, std=0.2)
    made.eval()
    ids = tokens(4, 11)
    with torch.no_grad():
        mixed = made(input_ids=ids, adapter_names=["second", "__base__", "first", "second"]).logits
        for row, name in enumerate(["second", None, "first", "second"]):
            if name is None:
                with made.disable_adapter():
                    alone = made(input_ids=ids).logits
            else:
                made.set_adapter(name)
                alone = made(input_ids=ids).logits
            assert torch.allclose(mixed[row], alone[row], atol=1e-5)
            assert name == "second" or not torch.allclose(mixed[3], alone[3], atol=1e-2)


def test_dropout_thins_what_goes_into_a_and_nothing_else() -> None:
    torch.manual_seed(0)
    draw = {"dtype": torch.float64}
    given = [torch.randn(6, 8, **draw), torch.tensor([[0, 1], [2, 0], [1, 2], [0, 2], [1, 0], [2, 1]]),
             torch.rand(6, 2, **draw), torch.randn(3, 10, 8, **draw), torch.randn(3, 8, 5, **draw)]  # fmt: skip
    still = Learnt(torch.zeros(3 * 2, 8, **draw), torch.zeros(10, 2 * 3, **draw), 1.0)
    halves = [torch.randn(3 * 2, 5, **draw).requires_grad_(), torch.randn(8, 2 * 3, **draw).requires_grad_()]
    many = [part.repeat(4000, *[1] * (part.ndim - 1)) for part in given[:3]]
    with torch.no_grad():
        right = experts_cpu(*given, LowRank.of(still, Learnt(*halves, 0.7), 3, torch.float64))
        low = LowRank.of(still, Learnt(*halves, 0.7), 3, torch.float64, dropout=0.5)
        drawn = experts_cpu(*many, *given[3:], low).unflatten(0, (4000, 6))
    error = drawn.std(0) / 4000**0.5
    assert float(drawn.std(0).min()) > 0.01
    assert float(((drawn.mean(0) - right) / error).abs().max()) < 5  # of 48 numbers

    def fixed(hidden: torch.Tensor, *learnt: torch.Tensor) -> torch.Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            pairs = Learnt(*learnt[:2], 0.3), Learnt(*learnt[2:], 0.7)
            return experts_cpu(hidden, *given[1:], LowRank.of(*pairs, 3, torch.float64, dropout=0.3))

    inner = [torch.randn(3 * 2, 8, **draw).requires_grad_(), torch.randn(10, 2 * 3, **draw).requires_grad_()]
    assert torch.autograd.gradcheck(fixed, (given[0].requires_grad_(), *inner, *halves))


def test_dropout_ends_with_training(base: PreTrainedModel) -> None:
    made, ids = trained(add_adapter(base, EXPERTS.model_copy(update={"dropout": 0.5}), 0)), tokens(2, 15)
    made.model.train()
    assert not torch.allclose(made.model(input_ids=ids).logits, made.model(input_ids=ids).logits, atol=1e-3)
    made.model.eval()
    assert torch.equal(made.model(input_ids=ids).logits, made.model(input_ids=ids).logits)


def test_the_lowest_blocks_stay_as_they_are() -> None:
    made = add_adapter(model(), EXPERTS.model_copy(update={"first_layer": 1}), 0)
    assert {one.name.split(".layers.")[1][0] for one in made.trained()} == {"1"}


@pytest.mark.parametrize("kind", ["dora", "gelu_lora"])
def test_other_kinds_are_refused(kind: str) -> None:
    with pytest.raises(UserError, match=f'adapter.kind = "{kind}"'):
        add_adapter(model(), EXPERTS.model_copy(update={"kind": kind}), 0)


def test_what_has_no_form_for_experts_is_refused_by_the_check() -> None:
    assert beside_experts(EXPERTS, pool=False) is None
    assert beside_experts(Adapter(), pool=True, private="dp") is None
    assert "pool" in str(beside_experts(EXPERTS, pool=True))
    assert "gradient of one row" in str(beside_experts(EXPERTS, pool=False, private="dp"))
    assert "principal" in str(beside_experts(EXPERTS.model_copy(update={"initial": "principal"}), pool=False))


def test_a_model_without_experts_and_experts_of_another_form_are_refused() -> None:
    from transformers import GptOssConfig, GptOssForCausalLM, LlamaConfig, LlamaForCausalLM

    small = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
             "num_attention_heads": 4, "num_key_value_heads": 2}  # fmt: skip
    with pytest.raises(UserError, match="'experts'"):
        add_adapter(LlamaForCausalLM(LlamaConfig(**small)), EXPERTS, 0)
    other = GptOssForCausalLM(GptOssConfig(**small, head_dim=8, num_local_experts=4, num_experts_per_tok=2))
    with pytest.raises(UserError, match="biases"):
        add_adapter(other, EXPERTS, 0)
