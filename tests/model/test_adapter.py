"""LoRA, rsLoRA and DoRA: where they go, in which dtype, and that PEFT alone reads what was written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM

from r1core.api import UserError
from r1core.model.adapted import adapted_of
from r1core.model.adapter import adapter_tensors, add_adapter, load_adapter, set_adapter_tensors
from r1core.model.placement import linear_names
from r1core.recipe.training import Adapter
from r1core.testing.tiny import tiny_model

IDS = torch.tensor([[5, 6, 7, 8]])
BLOCK = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


def add_lora(adapter: Adapter, seed: int = 0, model: LlamaForCausalLM | None = None) -> PeftModel:
    made = add_adapter(model or tiny_model(), adapter, seed).model
    assert isinstance(made, PeftModel)
    return made


def trainable(model: PeftModel) -> dict[str, torch.nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def trained(**options: object) -> PeftModel:
    """An adapter that does something: LoRA starts with a zero half."""
    model = add_lora(Adapter(rank=4, **options), seed=3, model=tiny_model().requires_grad_(False))  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    for parameter in trainable(model).values():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) / 10)
    return model.eval()


def test_all_linear_is_every_linear_layer_of_the_blocks_and_never_the_head() -> None:
    assert linear_names(tiny_model()) == BLOCK
    names = trainable(add_lora(Adapter(rank=4)))
    assert len(names) == 2 * 2 * len(BLOCK)
    assert not any("lm_head" in name or "embed" in name for name in names)
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2))
    assert linear_names(gpt2) == ["c_attn", "c_fc", "c_proj"]


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora"])
def test_a_frozen_a_is_not_trained_and_is_saved_all_the_same(tmp_path: Path, kind: str) -> None:
    model = trained(kind=kind, freeze_a=True)
    assert not any("lora_A" in name for name in trainable(model))
    assert sum("lora_B" in name for name in trainable(model)) == 2 * len(BLOCK)
    start = adapter_tensors(add_lora(Adapter(rank=4, kind=kind), seed=3, model=tiny_model().requires_grad_(False)))
    adapted_of(model).save(tmp_path)
    again = adapter_tensors(load_adapter(tiny_model().requires_grad_(False), tmp_path).model)
    for name in (name for name in start if "lora_A" in name):
        assert torch.equal(again[name], start[name])


def test_a_cannot_stay_frozen_in_an_adapter_that_is_not_peft_s() -> None:
    with pytest.raises(UserError, match=r"freeze_a beside adapter\.kind"):
        add_lora(Adapter(kind="gelu_lora", freeze_a=True))


def test_blocks_below_first_layer_stay_untouched() -> None:
    names = trainable(add_lora(Adapter(rank=4, first_layer=1)))
    assert len(names) == 2 * len(BLOCK)
    assert all(".layers.1." in name for name in names)
    with pytest.raises(UserError, match=r"adapter\.first_layer = 2: the model has 2 blocks"):
        add_lora(Adapter(first_layer=2))


def test_trainables_are_fp32_over_a_bf16_base() -> None:
    model = add_lora(Adapter(rank=4), model=tiny_model().to(torch.bfloat16))
    assert {p.dtype for p in trainable(model).values()} == {torch.float32}
    assert {p.dtype for n, p in model.named_parameters() if not p.requires_grad} == {torch.bfloat16}


def test_the_start_is_the_base_to_the_bit_and_comes_from_the_seed() -> None:
    state = torch.get_rng_state()
    models = [add_lora(Adapter(rank=4), seed=s).eval() for s in (0, 0, 1)]
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
        add_lora(Adapter(targets=targets))
    assert "q_proj" in refused.value.fix


def test_targets_by_name_and_by_path() -> None:
    names = trainable(add_lora(Adapter(targets=["q_proj", "mlp.up_proj"])))
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in names} == {"q_proj", "up_proj"}


def test_peft_alone_reads_what_was_saved(tmp_path: Path) -> None:
    model = trained()
    expected = model(IDS).logits
    assert not torch.allclose(expected, tiny_model()(IDS).logits)
    adapted_of(model).save(tmp_path)
    assert torch.equal(PeftModel.from_pretrained(tiny_model(), str(tmp_path)).eval()(IDS).logits, expected)
    ours = load_adapter(tiny_model(), tmp_path)
    assert torch.equal(ours.model(IDS).logits, expected)
    with ours.off():
        assert torch.equal(ours.model(IDS).logits, tiny_model()(IDS).logits)


def test_tensors_travel_between_models_and_must_fit() -> None:
    source, target = trained(), add_lora(Adapter(rank=4)).eval()
    tensors = adapter_tensors(source)
    set_adapter_tensors(target, tensors)
    assert torch.equal(target(IDS).logits, source(IDS).logits)
    first = next(iter(tensors))
    with pytest.raises(UserError, match=r"missing \['base_model.*left over \['other'\]"):
        set_adapter_tensors(target, {k: v for k, v in tensors.items() if k != first} | {"other": tensors[first]})
    with pytest.raises(UserError, match=r"is \(8, 32\), expected \(4, 32\)"):
        set_adapter_tensors(target, adapter_tensors(add_lora(Adapter(rank=8))))


def test_a_folder_without_an_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no adapter here") as refused:
        load_adapter(tiny_model(), tmp_path)
    assert "r1core train" in refused.value.fix


def pefts_own(**options: object) -> PeftModel:
    """What PEFT makes of the same, from the same seed, with its own layers."""
    torch.manual_seed(3)
    config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=32, target_modules=BLOCK, **options)  # type: ignore[arg-type]
    return get_peft_model(tiny_model(), config)


@pytest.mark.parametrize(
    ("kind", "option"), [("lora", {}), ("rslora", {"use_rslora": True}), ("dora", {"use_dora": True})]
)
def test_every_kind_is_pefts_own(kind: str, option: dict[str, bool], tmp_path: Path) -> None:
    ours, theirs = trained(kind=kind), pefts_own(**option)
    tensors = adapter_tensors(ours)
    if kind == "dora":  # magnitudes near the weights' own norms, as training leaves them
        tensors = {k: v + 1 if "magnitude" in k else v for k, v in tensors.items()}
        set_adapter_tensors(ours, tensors)
    assert any("magnitude" in name for name in tensors) == (kind == "dora")
    renamed = {k.replace("lora_magnitude_vector", "lora_magnitude_vector.default"): v for k, v in tensors.items()}
    renamed = {k.replace("_A.weight", "_A.default.weight").replace("_B.weight", "_B.default.weight"): v
               for k, v in renamed.items()}  # fmt: skip
    own = dict(theirs.named_parameters())
    with torch.no_grad():
        for name, value in renamed.items():
            found = own.get(name, own.get(f"{name}.weight"))
            assert found is not None, name
            found.copy_(value)
    assert torch.allclose(ours(IDS).logits, theirs.eval()(IDS).logits, rtol=1e-5, atol=1e-6)
    scalings = {m.scaling["default"] for m in ours.modules() if isinstance(m, Linear)}
    assert scalings == {16.0 if kind == "rslora" else 8.0}
    adapted_of(ours).save(tmp_path)
    again = PeftModel.from_pretrained(tiny_model(), str(tmp_path)).eval()
    assert torch.allclose(again(IDS).logits, ours(IDS).logits, rtol=1e-5, atol=1e-6)


def test_gradients_of_dora_are_pefts() -> None:
    ours, theirs = add_lora(Adapter(rank=4, kind="dora"), seed=3), pefts_own(use_dora=True)
    for model in (ours, theirs):
        model(IDS).logits.square().mean().backward()
    for (name, one), (other, two) in zip(trainable(ours).items(), trainable(theirs).items(), strict=True):
        assert name == other
        assert one.grad is not None
        assert two.grad is not None
        assert torch.allclose(one.grad, two.grad, rtol=1e-4, atol=1e-7), name


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora"])
def test_the_start_is_the_base_in_bf16_too(kind: str) -> None:
    base = tiny_model().to(torch.bfloat16)
    model = add_lora(Adapter(rank=4, kind=kind), model=tiny_model().to(torch.bfloat16)).eval()  # type: ignore[arg-type]
    assert {p.dtype for p in trainable(model).values()} == {torch.float32}
    found, expected = model(IDS).logits, base(IDS).logits
    assert found.dtype == torch.bfloat16
    assert torch.allclose(found, expected, atol=0.0 if kind != "dora" else 0.02)


def test_a_rank_beyond_the_width_is_taken_as_peft_takes_it() -> None:
    assert add_lora(Adapter(rank=100))(IDS).logits.isfinite().all()


def test_a_model_without_an_adapter_is_a_mistake_of_the_programs() -> None:
    with pytest.raises(TypeError, match="no adapter"):
        adapter_tensors(tiny_model())
