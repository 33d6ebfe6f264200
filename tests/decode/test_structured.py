"""JSON Schema and expressions over every family of vocabularies, against `jsonschema`, `re` and the tokenizer."""

from __future__ import annotations

import json
import random
import re
from decimal import Decimal
from typing import Any

import jsonschema
import numpy as np
import pytest

from r1core.api import Example, Message, UserError
from r1core.decode.asked import Asked
from r1core.decode.constraints import DeadEnd, Request, allowed_bool
from r1core.decode.hold import LabelSet, Phrases, hold
from r1core.decode.structured import JsonSchema, Regex
from r1core.decode.vocabulary import Vocabulary
from r1core.recipe.schema import Generate
from r1core.testing.check_decode import mask_flaw

from .families import FAMILIES
from .test_ending import NoAsa

ORDER = {
    "type": "object",
    "properties": {
        "drug": {"enum": ["aspirin", "ASA", "metformin"]},
        "dose_mg": {"type": "number", "minimum": 0.5, "maximum": 400},
        "times": {"type": "integer", "minimum": 1, "maximum": 4},
    },
    "required": ["drug", "dose_mg", "times"],
    "additionalProperties": False,
}
EXAMPLE = Example("one", (Message("user", "order"),), "task")
KNOWN: dict[str, tuple[Any, Vocabulary]] = {}


def family(name: str) -> tuple[Any, Vocabulary]:
    if name not in KNOWN:
        tokenizer = FAMILIES[name]()
        KNOWN[name] = tokenizer, Vocabulary.from_tokenizer(tokenizer)
    return KNOWN[name]


def walk(name: str, constraints: list[Any], rng: random.Random, most: int = 200) -> str:
    """A random text that the constraints allow, as the tokenizer itself decodes it."""
    tokenizer, vocabulary = family(name)
    held = hold(EXAMPLE, constraints, vocabulary)
    state, tokens = held.start({}), []
    assert state is not None
    while len(tokens) < most:
        mask = state.mask()
        assert mask_flaw(mask, vocabulary.size) == ""
        options = np.flatnonzero(allowed_bool(mask, vocabulary.size))
        assert not set(options.tolist()) & vocabulary.never_ids
        ends = [int(t) for t in options if int(t) in vocabulary.eos_ids]
        token = ends[0] if ends and (len(options) == 1 or rng.random() < 0.3) else int(rng.choice(options))
        assert state.explain(token) == ()
        if token in vocabulary.eos_ids:
            break
        state = state.advance(token)
        tokens.append(token)
    else:
        raise AssertionError("no end")
    text = tokenizer.decode(tokens)
    assert held.recheck(text) == []
    return str(text)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_text_is_a_document_of_the_schema(name: str) -> None:
    constraint, rng = JsonSchema(json.dumps(ORDER)), random.Random(1)
    seen = set()
    for _ in range(12):
        document = json.loads(walk(name, [constraint], rng), parse_float=Decimal)
        jsonschema.validate(document, ORDER)
        assert Decimal("0.5") <= document["dose_mg"] <= 400
        seen.add(document["drug"])
    assert len(seen) > 1


@pytest.mark.parametrize("name", FAMILIES)
def test_every_text_matches_the_expression(name: str) -> None:
    pattern, rng = r"(take|give) [1-9][0-9]{0,2}(\.[05])? mg( daily)?\.", random.Random(2)
    for _ in range(12):
        assert re.fullmatch(pattern, walk(name, [Regex(pattern)], rng))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_text_is_a_label_in_every_family(name: str) -> None:
    labels, rng = ("Cardiology", "Cardio", "extra heart", "do not"), random.Random(3)
    seen = {walk(name, [LabelSet(labels)], rng) for _ in range(80)}
    assert seen <= set(labels)
    assert len(seen) >= 3


@pytest.mark.parametrize("name", FAMILIES)
def test_a_schema_is_intersected_with_rules(name: str) -> None:
    rng = random.Random(4)
    schema = {"type": "object", "properties": {"drug": {"enum": ["ASA", "ASAP", "none"]}}, "required": ["drug"]}
    constraints = [JsonSchema(json.dumps({**schema, "additionalProperties": False})), NoAsa()]
    drugs = {json.loads(walk(name, constraints, rng))["drug"] for _ in range(20)}
    assert drugs == {"ASAP", "none"}
    open_end = [Regex("(ASA|ASAP|none)*"), Phrases(("none",))]
    assert all("none" in walk(name, open_end, rng) for _ in range(4))


def test_what_cannot_hold_together_stops_and_names_both() -> None:
    _, vocabulary = family("byte_level")
    state = hold(EXAMPLE, [Regex("[a-c]+"), LabelSet(("xyz",))], vocabulary).start({})
    assert state is not None
    with pytest.raises(DeadEnd, match="choices and regex"):
        state.mask()


def test_states_are_immutable_and_determined_by_the_prefix() -> None:
    _, vocabulary = family("byte_level")
    request = Request(EXAMPLE, vocabulary)
    first = Regex("ab*c").start(request)
    a, b, c = (vocabulary.token_bytes.index(x) for x in (b"a", b"b", b"c"))
    before, key = allowed_bool(first.mask(), vocabulary.size).copy(), first.key
    after = first.advance(a)
    assert after.key != key == first.key
    assert first.advance(a).key == after.key
    assert np.array_equal(allowed_bool(first.mask(), vocabulary.size), before)
    end = after.advance(b).advance(c)
    (eos,) = vocabulary.eos_ids
    assert np.flatnonzero(allowed_bool(end.mask(), vocabulary.size)).tolist() == [eos]
    assert end.advance(eos) is end
    with pytest.raises(ValueError, match="banned"):
        first.advance(c)
    assert first.explain(c)[0].rule == "regex"


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ("{", "not JSON"),
        ("[1]", "expected a JSON object"),
        ('{"type": "nothing"}', "no JSON Schema: at type"),
        ('{"$ref": "#/absent"}', "llguidance refuses it"),
        (
            '{"type": "object", "propertyNames": {"pattern": "^a"}, "unevaluatedProperties": 1}',
            "no JSON Schema|refuses",
        ),
    ],
)
def test_a_bad_schema_is_one_clear_line(schema: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        JsonSchema(schema, "order.json").start(Request(EXAMPLE, family("byte_level")[1]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("pattern", ["(", "(?=a)b", r"(a)\1"])
def test_a_bad_expression_is_one_clear_line(pattern: str) -> None:
    with pytest.raises(UserError, match="regex") as caught:
        Regex(pattern).start(Request(EXAMPLE, family("byte_level")[1]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "flaw"),
    [
        ('{"drug": "aspirin", "dose_mg": 400.0000000000000000001, "times": 1}', "greater than the maximum"),
        ('{"drug": "aspirin", "dose_mg": NaN, "times": 1}', "not JSON"),
        ('{"drug": "warfarin", "dose_mg": 1, "times": 1}', "is not one of"),
        ('{"drug": "aspirin", "dose_mg": 1, "times": 1', "not JSON"),
    ],
)
def test_the_recheck_finds_what_no_mask_would_let_through(text: str, flaw: str) -> None:
    (finding,) = JsonSchema(json.dumps(ORDER)).recheck(EXAMPLE, text)
    assert flaw in finding.text


def test_options_over_the_recipe() -> None:
    recipe = Generate(stop=["\n"], beams=3, regex="a+", require=["b"])
    assert Asked().over(recipe) == Asked(None, "a+", ("b",), ("\n",), 3)
    assert Asked(regex="c", stop=("x",), beams=1).over(recipe) == Asked(None, "c", ("b",), ("x",), 1)
    assert [c.name for c in Asked().over(recipe).constraints()] == ["regex", "required"]
    with pytest.raises(UserError, match="beams are not sampled"):
        Asked(beams=2).over(Generate(temperature=0.5))
    with pytest.raises(UserError, match="empty"):
        Asked(stop=("",)).over(Generate())


@pytest.mark.parametrize("name", FAMILIES)
def test_labels_need_no_llguidance_and_equal_its_answer(name: str) -> None:
    _, vocabulary = family(name)
    labels = ("Eye", "Eye and ear", "Heart", "extra heart", "日本")
    own = hold(EXAMPLE, [LabelSet(labels)], vocabulary).start({})
    theirs = hold(EXAMPLE, [Regex("|".join(labels))], vocabulary).start({})
    assert own is not None
    assert theirs is not None
    rng = random.Random(5)
    for _ in range(30):
        one, two = own, theirs
        for _ in range(12):
            allowed = allowed_bool(one.mask(), vocabulary.size)
            assert np.array_equal(allowed, allowed_bool(two.mask(), vocabulary.size))
            options = sorted(set(np.flatnonzero(allowed).tolist()) - vocabulary.eos_ids)
            if not options:
                break
            token = rng.choice(options)
            one, two = one.advance(token), two.advance(token)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_mask_allows_is_what_can_be_advanced_over(name: str) -> None:
    _, vocabulary = family(name)
    label = "war farin; 日本"
    for constraint in (LabelSet((label, "w")), NoAsa(), Regex("( |w|a)+")):
        state = hold(EXAMPLE, [constraint], vocabulary).start({})
        assert state is not None
        for _ in range(3):
            allowed = allowed_bool(state.mask(), vocabulary.size)
            after = {}
            for token in range(vocabulary.size):
                assert state.allows(token) == allowed[token]
                try:
                    after[token] = state.advance(token)
                except ValueError:
                    assert not allowed[token]
                else:
                    assert allowed[token]
            state = next(found for token, found in after.items() if token not in vocabulary.eos_ids)
