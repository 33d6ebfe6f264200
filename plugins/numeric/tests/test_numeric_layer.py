"""The heads: what they read and what not, that they learn, and the programs that they hand to the constraint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import torch
from r1core_numeric.annotator import KIND, WIDTH, NumberAnnotator
from r1core_numeric.config import POINTER, NumericConfig
from r1core_numeric.execute import Result, execute
from r1core_numeric.layer import layers
from r1core_numeric.learned import ASKED_KIND, ROLE_KIND, ChoiceAnnotator
from r1core_numeric.programs import program_from_json
from r1core_numeric.selection import OPERATIONS
from r1core_numeric.slots import slots_of

from r1core import api

TEXT = "KO closed at 34.51 and then at 36.20. PEP stayed at 63. What is the change of KO?"
CHANGE = {"op": "subtract", "args": [{"slot": 1}, {"slot": 0}]}
CONFIG = NumericConfig(layer=POINTER)


def marked(fields: Mapping[str, api.JSON], text: str = TEXT) -> api.Example:
    example = api.Example("a", (api.Message("user", text),), "t", fields=fields)
    return ChoiceAnnotator(CONFIG)(NumberAnnotator(CONFIG)(example))


def of(example: api.Example, kind: str) -> list[tuple[str, object]]:
    text = example.messages[0].content
    return [(text[s.start : s.end], s.value) for s in example.spans if s.kind == kind]


def test_a_program_becomes_roles_on_its_numbers_and_an_operation_at_the_end_of_the_question() -> None:
    example = marked({"program": CHANGE})
    assert of(example, ROLE_KIND) == [("34.51", 2), ("36.20", 1), ("63", 0)]
    assert of(example, ASKED_KIND) == [("?", OPERATIONS.index("difference"))]
    assert of(marked({}), ROLE_KIND) == []
    assert of(marked({}), ASKED_KIND) == [("?", -1)]
    assert of(marked({}, "  \n"), ASKED_KIND) == []


def test_a_program_that_no_operation_covers_teaches_nothing_and_one_that_points_past_the_prompt_is_refused() -> None:
    assert of(marked({"program": {"op": "negate", "args": [{"slot": 0}]}}), ROLE_KIND) == []
    with pytest.raises(api.UserError, match="points at number 7 of a prompt with 3"):
        marked({"program": {"op": "subtract", "args": [{"slot": 7}, {"slot": 0}]}})


def slots(ends: list[int], values: list[list[float]]) -> api.SlotFeatures:
    end = torch.tensor([ends])
    return api.SlotFeatures(end - 1, end, torch.tensor([values]), torch.ones(1, len(ends), dtype=torch.bool))


def features(roles: list[int], operation: int) -> dict[str, api.SlotFeatures]:
    return {
        KIND: slots([3, 6, 9], [[1.0] + [0.0] * (WIDTH - 1)] * 3),
        ROLE_KIND: slots([3, 6, 9], [[float(role)] for role in roles]),
        ASKED_KIND: slots([12], [[float(operation)]]),
    }


def pointer() -> tuple[api.LayerSpec, torch.nn.Module]:
    torch.manual_seed(0)
    spec = layers(CONFIG)[1]
    return spec, spec.factory(16)


def test_gold_marks_reach_the_loss_and_nothing_else() -> None:
    spec, module = pointer()
    hidden = torch.randn(1, 12, 16)
    one, other = features([2, 1, 0], 0), features([0, 2, 1], 4)
    assert spec.output is not None
    assert spec.loss is not None
    assert torch.equal(module(hidden, one), module(hidden, other))
    assert spec.output(module, hidden, one) == spec.output(module, hidden, other)
    assert spec.loss(module, hidden, one).item() != spec.loss(module, hidden, other).item()
    unknown = features([2, 1, 0], -1)
    unknown[ROLE_KIND] = replace(unknown[ROLE_KIND], mask=torch.zeros(1, 3, dtype=torch.bool))
    assert spec.loss(module, hidden, unknown).item() == 0.0


def test_the_loss_is_the_sum_of_cross_entropies_written_out() -> None:
    spec, module = pointer()
    hidden = torch.randn(1, 12, 16)
    given = features([2, 1, 0], 3)
    assert spec.loss is not None
    roles = module.judge(hidden, given)[0][0].softmax(-1)  # type: ignore[operator]
    said = module.judge(hidden, given)[1][0, 0].softmax(-1)  # type: ignore[operator]
    wanted = -(roles[0, 2].log() + roles[1, 1].log() + roles[2, 0].log() + said[3].log())
    assert spec.loss(module, hidden, given).item() == pytest.approx(wanted.item(), rel=1e-5)


def test_rows_that_stand_in_one_sequence_are_judged_as_if_alone() -> None:
    spec, module = pointer()
    assert spec.loss is not None
    hidden = torch.randn(1, 24, 16)
    first, second = features([2, 1, 0], 0), features([1, 1, 0], 4)
    both = {
        kind: api.SlotFeatures(
            torch.cat([first[kind].start, second[kind].start + 12], 1),
            torch.cat([first[kind].end, second[kind].end + 12], 1),
            torch.cat([first[kind].values, second[kind].values], 1),
            torch.cat([first[kind].mask, second[kind].mask], 1),
            torch.cat([torch.zeros_like(first[kind].start), torch.ones_like(second[kind].start)], 1),
        )
        for kind in first
    }
    apart = spec.loss(module, hidden[:, :12], first) + spec.loss(module, hidden[:, 12:], second)
    assert torch.allclose(spec.loss(module, hidden, both), apart, rtol=1e-5)


@pytest.mark.slow
def test_it_learns_what_hidden_states_tell_and_hands_on_a_program_that_is_executed_exactly() -> None:
    spec, module = pointer()
    assert spec.loss is not None
    assert spec.output is not None
    draw = torch.Generator().manual_seed(1)
    kinds = torch.randn(3, 16, generator=draw)  # how a first, a second and no operand look
    batches = []
    for _ in range(64):
        roles = torch.randperm(3, generator=draw).tolist()
        hidden = torch.randn(1, 12, 16, generator=draw) / 4
        for place, role in zip((2, 5, 8), roles, strict=True):
            hidden[0, place] += kinds[role]
        operation = int(torch.randint(2, (1,), generator=draw))
        hidden[0, 11, 0] += 4.0 * operation - 2.0
        batches.append((hidden, roles, operation))
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    for _ in range(6):
        for hidden, roles, operation in batches[:48]:
            optimizer.zero_grad()
            spec.loss(module, hidden, features(roles, operation)).sum().backward()
            optimizer.step()
    numbers = slots_of(api.Example("a", (api.Message("user", TEXT),), "t"))
    right = 0
    for hidden, roles, operation in batches[48:]:
        said = spec.output(module, hidden, features([0, 0, 0], -1))
        if said is None:
            continue
        done = execute(program_from_json(said), numbers)
        assert isinstance(done, Result)
        new, old = (numbers[roles.index(role)].fraction for role in (1, 2))
        right += done.value == (new - old if operation == 0 else (new - old) / old)
    assert right >= 15


def test_where_the_heads_are_not_sure_there_is_no_program() -> None:
    spec = layers(NumericConfig(layer=POINTER, least_probability=1.0))[1]
    torch.manual_seed(0)
    assert spec.output is not None
    assert spec.output(spec.factory(16), torch.randn(1, 12, 16), features([0, 0, 0], -1)) is None
    assert layers(NumericConfig()) == []


def test_conforms(r1core_check: Callable[..., None]) -> None:
    example = api.Example(
        "a", (api.Message("user", TEXT), api.Message("assistant", "1.69")), "t", fields={"program": CHANGE}
    )
    r1core_check("numeric", config={"layer": POINTER}, examples=[example], outputs={POINTER: CHANGE})
