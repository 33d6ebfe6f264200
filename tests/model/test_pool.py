"""A pool of task adapters against plain models whose weights hold each task's sum, and against PEFT."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.func import functional_call
from transformers import GPT2Config, GPT2LMHeadModel

from r1core.api import R1Error, UserError
from r1core.data.packing import Batch, Layout, pack_rows
from r1core.data.routes import routes_of
from r1core.data.tokens import TASK_TOKEN, Encoded
from r1core.model.adapter import add_adapter, load_adapter, set_adapter_tensors
from r1core.model.fused_lora import Casts
from r1core.model.pool import PoolAdapted, Wanted
from r1core.model.scores import logits_at
from r1core.recipe.pool import Pool
from r1core.recipe.strategy import Strategy
from r1core.recipe.training import Adapter
from r1core.testing.tiny import tiny_model

TASKS = ("a", "b", "c")
KINDS = ("soft", "hard", "top_k")
ADAPTER = Adapter(rank=4, alpha=6)


def pool(routing: str = "soft", *, tasks: tuple[str, ...] = TASKS, **table: object) -> PoolAdapted:
    wanted = Wanted(Pool.model_validate({"routing": routing, **table}), tasks)
    made = add_adapter(tiny_model(), ADAPTER, seed=3, wanted=wanted)
    assert isinstance(made, PoolAdapted)
    return made


@torch.no_grad()
def shaken(adapted: PoolAdapted, seed: int = 0) -> PoolAdapted:
    """Every trained weight away from its start."""
    generator = torch.Generator().manual_seed(seed)
    for one in adapted.trained():
        one.parameter.add_(torch.randn(one.parameter.shape, generator=generator) / 5)
    return adapted


def rows(tasks: str = "abcabca", *, prepend: bool = False) -> list[Encoded]:
    before = (TASK_TOKEN,) if prepend else ()
    return [
        Encoded(str(i), (*before, 5, 6, 7 + i % 2, 8 + i), (9 + i, 30, 2)[: 2 + i % 2], (), task)
        for i, task in enumerate(tasks)
    ]


def batch(given: list[Encoded], layout: Layout | None = None) -> Batch:
    return pack_rows(given, {}, torch.float32, layout or Layout())


def reference(adapted: PoolAdapted, given: list[Encoded], tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """Logits of the wanted positions, row by row, from a plain model with the task's sum in its weights."""
    stated, names = adapted.settings, list(adapted.settings.tasks)
    base = tiny_model()
    weights = {name: value.detach() for name, value in base.named_parameters()}
    found = []
    for row in given:
        number = names.index(row.task)
        if stated.routing == "hard":
            gates = [float(n == number) for n in range(len(names))]
        else:
            token, gate = tensors["r1core_pool.tokens.0"][number], tensors["r1core_pool.rows.0"]
            scores = [torch.exp((gate[n] * token).sum()) for n in range(len(names))]
            kept = sorted(range(len(names)), key=lambda n: -float(scores[n].detach()))
            kept = kept[: stated.top_k if stated.routing == "top_k" else len(names)]
            gates = [scores[n] / sum(scores[k] for k in kept) if n in kept else 0.0 for n in range(len(names))]
        own = dict(weights)
        for module in stated.modules:
            downs = tensors[f"{module}.pool_A.0"].split(stated.rank, 0)
            ups = tensors[f"{module}.pool_B.0"].split(stated.rank, 1)
            for gate, down, up in zip(gates, downs, ups, strict=True):
                own[f"{module}.weight"] = own[f"{module}.weight"] + 1.5 * gate * (up @ down)
        ids = [token for token in (*row.prompt, *row.response[:-1]) if token != TASK_TOKEN]
        embedded = weights["model.embed_tokens.weight"][ids]
        if stated.prepend:
            before = tensors["r1core_pool.project"] @ tensors["r1core_pool.tokens.0"][number]
            embedded = torch.cat([before[None], embedded])
        logits = functional_call(base, own, (), {"inputs_embeds": embedded[None]}).logits[0]
        found.append(logits[len(row.prompt) - 1 :])
    return torch.cat(found)


@pytest.mark.parametrize("prepend", [False, True])
@pytest.mark.parametrize("routing", KINDS)
def test_logits_and_gradients_are_those_of_every_tasks_own_weights(routing: str, prepend: bool) -> None:
    adapted, given = shaken(pool(routing, prepend=prepend)), rows(prepend=prepend)
    leaves = {name: value.requires_grad_() for name, value in adapted.tensors().items()}
    expected = reference(adapted, given, leaves)
    for layout in (Layout(), Layout(share=False)):
        adapted.model.zero_grad()
        found = logits_at(adapted.model, batch(given, layout))
        assert torch.allclose(found, expected, atol=2e-5)
        found.square().mean().backward()
        ours = {one.name: one.parameter.grad for one in adapted.trained()}
        theirs = torch.autograd.grad(expected.square().mean(), list(leaves.values()), retain_graph=True)
        assert ours.keys() == leaves.keys()
        for name, wanted in zip(leaves, theirs, strict=True):
            assert torch.allclose(ours[name], wanted, rtol=1e-3, atol=1e-6), name


def test_tasks_that_alternate_are_routed_all_the_same() -> None:
    adapted = shaken(pool("hard", prepend=False))
    one = torch.tensor([[20, 21, 22, 23, 24, 25]])
    for tasks in ("aabbcc", "abcabc"):  # slices, and one gated product
        said = routes_of(list(tasks), [1] * 6)
        diagonal = torch.full((1, 1, 6, 6), torch.finfo(torch.float32).min)
        diagonal[0, 0].fill_diagonal_(0.0)
        found = adapted.model(
            input_ids=one, position_ids=torch.zeros_like(one), attention_mask=diagonal, task_routes=said
        )
        for place, task in enumerate(tasks):
            alone = adapted.model(input_ids=one[:, place, None], task_routes=routes_of([task], [1]))
            assert torch.allclose(found.logits[0, place], alone.logits[0, 0], atol=1e-5)


def test_one_task_under_hard_routing_is_pefts_lora() -> None:
    adapted = shaken(pool("hard", tasks=("a",), prepend=False))
    config = LoraConfig(r=4, lora_alpha=6, target_modules=[m.rpartition(".")[2] for m in adapted.settings.modules])
    peft = get_peft_model(tiny_model(), config)
    tensors = adapted.tensors()
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if ".lora_" in name:
                module, half = name.removeprefix("base_model.model.").split(".lora_")
                parameter.copy_(tensors[f"{module}.pool_{half[0]}.0"])
    given = rows("aaaa")
    found = logits_at(adapted.model, batch(given))
    plain = logits_at(peft, batch([row.for_base() for row in given]))
    assert torch.allclose(found, plain, atol=1e-5)
    for logits in (found, plain):
        logits.square().mean().backward()
    grads = {n: p.grad for n, p in peft.named_parameters() if p.grad is not None}
    for one in adapted.trained():
        module, half = one.name.split(".pool_")
        wanted = grads[f"base_model.model.{module}.lora_{half[0]}.default.weight"]
        assert torch.allclose(one.parameter.grad, wanted, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("routing", KINDS)
def test_the_start_is_the_base_to_the_bit(routing: str, dtype: torch.dtype) -> None:
    state = torch.get_rng_state()
    wanted = Wanted(Pool(routing=routing, prepend=False), TASKS)  # type: ignore[arg-type]
    adapted = add_adapter(tiny_model().to(dtype), ADAPTER, seed=0, wanted=wanted)
    assert torch.equal(torch.get_rng_state(), state)
    given = pack_rows(rows(), {}, dtype)
    found = logits_at(adapted.model, given)
    assert torch.equal(found, logits_at(tiny_model().to(dtype), dataclasses.replace(given, routes=None)))
    assert {one.parameter.dtype for one in adapted.trained()} == {torch.float32}
    found.square().mean().backward()
    ups = [one.parameter.grad for one in adapted.trained() if one.up]
    assert len(ups) == 14
    assert all(grad is not None and grad.dtype == torch.float32 and grad.any() for grad in ups)


@pytest.mark.parametrize("prepend", [False, True])
def test_off_is_the_base_to_the_bit(prepend: bool) -> None:
    adapted = shaken(pool(prepend=prepend))
    plain = batch([row.for_base() for row in rows(prepend=prepend)])
    assert adapted.routed
    with adapted.off():
        assert not adapted.routed
        assert torch.equal(logits_at(adapted.model, plain), logits_at(tiny_model(), plain))
        with pytest.raises(R1Error, match="was told tasks"):
            logits_at(adapted.model, batch(rows(prepend=prepend)))
    assert adapted.routed


def test_a_pass_has_to_be_told_tasks_that_are_there() -> None:
    adapted = pool()
    with pytest.raises(R1Error, match="not told the tasks"):
        adapted.model(torch.tensor([[5, 6]]))
    with pytest.raises(UserError, match=r"task 'd' is not in this pool") as refused:
        logits_at(adapted.model, batch(rows("abd", prepend=True)))
    assert "a, b, c" in refused.value.fix


@pytest.mark.parametrize("number", [2, 3, 10])
def test_gates_start_with_the_tasks_own_adapter_ahead(number: int) -> None:
    adapted = pool(tasks=tuple(map(str, range(number))))
    weights = adapted.gate.weights().detach()
    share = math.e / (1 + math.e) if number == 2 else 0.5
    assert torch.allclose(weights.diagonal(), torch.full((number,), share), atol=1e-4)
    others = weights[~torch.eye(number, dtype=torch.bool)]
    assert torch.allclose(others, torch.full_like(others, (1 - share) / (number - 1)), atol=1e-4)


def test_a_prepended_token_is_as_long_as_an_embedding() -> None:
    adapted = pool()
    table = tiny_model().get_input_embeddings().weight.detach()
    found = float(adapted.gate.prepended([0, 1, 2]).detach().square().mean().sqrt())
    assert found == pytest.approx(float(table.square().mean().sqrt()), rel=0.3)


def test_what_a_routing_does_not_use_is_not_there() -> None:
    def names(adapted: PoolAdapted) -> set[str]:
        return {one.name.split(".")[1] for one in adapted.trained() if one.name.startswith("r1core_pool")}

    assert names(pool("hard", prepend=False)) == set()
    assert names(pool("hard")) == {"tokens", "project"}
    assert names(pool("soft", prepend=False)) == {"tokens", "rows"}


@pytest.mark.parametrize("routing", KINDS)
def test_saved_and_loaded_it_gives_the_same_logits(routing: str, tmp_path: Path) -> None:
    adapted, given = shaken(pool(routing)), batch(rows(prepend=True))
    adapted.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r1core_adapter.json", "r1core_adapter.safetensors"]
    stated = json.loads((tmp_path / "r1core_adapter.json").read_text())
    assert (stated["kind"], stated["cohorts"]) == ("pool", [["a", "b", "c"]])
    again = load_adapter(tiny_model(), tmp_path)
    assert torch.equal(logits_at(again.model, given), logits_at(adapted.model, given))
    assert list(again.trained()) == []
    with pytest.raises(UserError, match="another update for each task"):
        again.merged()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "format 2"),
        ({"modules": ["nowhere"]}, "nowhere is no linear layer"),
        ({"rank": "four"}, "not a pool's description"),
        ({"cohorts": []}, "not a pool's description"),
        ({"more": 1}, "not a pool's description"),
        ({"rank": 5}, "expected"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(change: dict[str, object], said: str, tmp_path: Path) -> None:
    pool().save(tmp_path)
    path = tmp_path / "r1core_adapter.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=said):
        load_adapter(tiny_model(), tmp_path)


def test_weights_that_are_broken_are_refused(tmp_path: Path) -> None:
    pool().save(tmp_path)
    (tmp_path / "r1core_adapter.safetensors").write_bytes(b"short")
    with pytest.raises(UserError, match="cannot be read"):
        load_adapter(tiny_model(), tmp_path)


@pytest.mark.parametrize("prepend", [False, True])
@pytest.mark.parametrize("routing", KINDS)
def test_a_task_added_later_changes_no_bit_of_the_others(routing: str, prepend: bool, tmp_path: Path) -> None:
    before = shaken(pool(routing, prepend=prepend))
    (tmp_path / "adapter").mkdir()
    before.save(tmp_path / "adapter")
    given = batch(rows(prepend=prepend))
    expected = logits_at(before.model, given).detach()
    grown = shaken(pool(routing, tasks=("d", "e"), prepend=prepend, extends=tmp_path), seed=1)
    assert grown.settings.cohorts == (TASKS, ("d", "e"))
    assert torch.equal(logits_at(grown.model, given), expected)
    # In training, frozen weights get no gradient and new ones do; the new tasks are mixed with the old in one batch.
    logits_at(grown.model, batch(rows("adbe", prepend=prepend))).square().mean().backward()
    trained = {one.name for one in grown.trained()}
    assert all(name.endswith(".1") for name in trained)
    for name, parameter in grown.model.named_parameters():
        wanted = name in trained
        assert parameter.requires_grad == wanted
        assert (parameter.grad is not None and bool(parameter.grad.any())) == wanted, name
    # Saved, loaded and extended once more.
    (tmp_path / "second" / "adapter").mkdir(parents=True)
    grown.save(tmp_path / "second" / "adapter")
    again = load_adapter(tiny_model(), tmp_path / "second" / "adapter")
    newer = batch(rows("dede", prepend=prepend))
    assert torch.equal(logits_at(again.model, given), expected)
    assert torch.equal(logits_at(again.model, newer), logits_at(grown.model, newer))
    third = shaken(pool(routing, tasks=("f",), prepend=prepend, extends=tmp_path / "second"), seed=2)
    assert torch.equal(logits_at(third.model, given), expected)
    assert torch.equal(logits_at(third.model, newer), logits_at(grown.model, newer))


def test_a_pool_is_extended_as_it_was_made(tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    pool().save(tmp_path / "adapter")
    with pytest.raises(UserError, match=r"pool\.routing"):
        pool("hard", tasks=("d",), extends=tmp_path)
    wanted = Wanted(Pool(extends=tmp_path), ("d",))
    with pytest.raises(UserError, match=r"adapter\.targets"):
        add_adapter(tiny_model(), ADAPTER.model_copy(update={"first_layer": 1}), seed=3, wanted=wanted)


def test_tensors_travel_between_models_and_must_fit() -> None:
    source, target = shaken(pool()), pool()
    set_adapter_tensors(target.model, source.tensors())
    given = batch(rows(prepend=True))
    assert torch.equal(logits_at(target.model, given), logits_at(source.model, given))
    with pytest.raises(UserError, match="missing"):
        set_adapter_tensors(target.model, {})


def test_by_role_and_on_the_transposed_layers_of_gpt2() -> None:
    only = Strategy.model_validate({"shallow_attention": {"mode": "frozen"}, "middle_attention": {"mode": "frozen"}})
    adapted = add_adapter(tiny_model(), ADAPTER, seed=0, strategy=only, wanted=Wanted(Pool(), TASKS))
    roles = {one.role for one in adapted.trained()}
    assert roles == {"embeddings", "shallow_feed_forward", "middle_feed_forward"}
    config = GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=2)
    base = GPT2LMHeadModel(config).eval().requires_grad_(False)
    given = batch(rows())
    expected = logits_at(base, dataclasses.replace(given, routes=None))
    for routing in KINDS:
        table = Pool(routing=routing, prepend=False)  # type: ignore[arg-type]
        torch.manual_seed(0)
        copy = GPT2LMHeadModel(config).eval()
        copy.load_state_dict(base.state_dict())
        found = logits_at(add_adapter(copy, ADAPTER, seed=0, wanted=Wanted(table, TASKS)).model, given)
        assert torch.equal(found, expected)


@pytest.mark.parametrize("routing", KINDS)
def test_weights_cast_once_a_step_are_those_cast_in_every_pass(routing: str) -> None:
    wanted = Wanted(Pool(routing=routing), TASKS)  # type: ignore[arg-type]
    adapted = add_adapter(tiny_model().to(torch.bfloat16), ADAPTER, seed=0, wanted=wanted)
    assert isinstance(adapted, PoolAdapted)
    shaken(adapted)
    given = pack_rows(rows(prepend=True), {}, torch.bfloat16)
    expected = logits_at(adapted.model, given)
    casts = Casts(adapted.model)
    assert all(layer.casts is not None for layer in adapted.layers.values())
    assert torch.equal(logits_at(adapted.model, given), expected)
    shaken(adapted, seed=1)
    casts.refresh()
    changed = logits_at(adapted.model, given)
    assert not torch.equal(changed, expected)
    casts.end()
    assert torch.equal(logits_at(adapted.model, given), changed)
