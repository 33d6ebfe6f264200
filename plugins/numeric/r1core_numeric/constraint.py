"""The decode constraints: no number without provenance, and the results of programs stand in the answer.

`numeric/provenance` forbids: a token that would begin or extend a number that is neither in the input nor a result is
masked, and where a result is due its digits are all that is left. `numeric/results` requires: the answer may not end
before every result stands in it. Programs come from a layer's output, from a field of the example, or from both; where
the plugin's own layer chooses them the field is what it learns from, and is not executed.
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from r1core import api
from r1core_numeric.claims import Allowed, allowed, provenance, unsupported
from r1core_numeric.config import POINTER, NumericConfig
from r1core_numeric.execute import Abstained, Result, attempt, execute, result_to_json
from r1core_numeric.programs import Program, program_from_json
from r1core_numeric.slots import slots_of
from r1core_numeric.values import Number

_log = logging.getLogger(__name__)
PROVENANCE, RESULTS = "numeric/provenance", "numeric/results"
KEPT = 1024  # prompts remembered until their answer is rechecked
AUTOMATA = 32  # kept for equal prompts; some MB each
_Key = tuple[str, str]
_K = TypeVar("_K")
_V = TypeVar("_V")
_RULE = "every number in an answer is in the input or a program's result"


@dataclass(frozen=True, slots=True)
class Grounds:
    """What an answer to one prompt may and has to state.

    Parameters
    ----------
    abstained : programs without a result, with their reasons.
    """

    slots: tuple[Number, ...]
    results: tuple[Result, ...]
    abstained: tuple[Abstained, ...]
    allowed: Allowed


def grounds(example: api.Example, config: NumericConfig, said: api.JSON = None) -> Grounds:
    """Read an example's numbers and run its programs.

    Parameters
    ----------
    said : what the layer says: a program, a list of programs, or None where it abstains.

    Raises
    ------
    UserError : for a program or a table in no form that can be read.
    """
    slots = slots_of(example, config.reading)
    learnt = _programs(said, f"example {example.id}: layer {config.layer}")
    gold = None if config.layer == POINTER else example.fields.get(config.program)
    stated = _programs(gold, f"example {example.id}: fields.{config.program}")
    done = [*(attempt(program, slots) for program in learnt), *(execute(program, slots) for program in stated)]
    results = tuple(one for one in done if isinstance(one, Result))
    abstained = tuple(one for one in done if isinstance(one, Abstained))
    inputs = slots
    if abstained and config.on_abstain == "silent":
        inputs = tuple(slot for slot in slots if slot.kind != "quantity")
    may = allowed(inputs, results, absolute=config.absolute, currency=config.currency)
    return Grounds(slots, results, abstained, may)


def _programs(found: api.JSON, where: str) -> list[Program]:
    """The programs of a field or of a layer's output: one, a list of them, or none."""
    if found is None:
        return []
    listed = list(found) if isinstance(found, list | tuple) else [found]
    return [
        one if isinstance(one, Program) else program_from_json(one, f"{where}[{at}]") for at, one in enumerate(listed)
    ]


class Memory:
    """Grounds by prompt, so that both constraints and the recheck see what the layer said when the answer began."""

    def __init__(self, config: NumericConfig) -> None:
        self._config = config
        self._kept: OrderedDict[_Key, Grounds] = OrderedDict()
        self._automata: OrderedDict[tuple[_Key, bool], tuple[Grounds, api.ByteAutomaton]] = OrderedDict()

    def begin(self, request: api.DecodeRequest) -> Grounds:
        """The grounds of a request, kept for its recheck."""
        said = request.outputs.get(self._config.layer) if self._config.layer else None
        found = grounds(request.example, self._config, said)
        _keep(self._kept, _key(request.example), found, KEPT)
        return found

    def of(self, example: api.Example) -> Grounds:
        """The grounds of an example; of one that no request began, by its fields alone."""
        found = self._kept.get(_key(example))
        return grounds(example, self._config) if found is None else found

    def automaton(self, example: api.Example, found: Grounds, *, requires: bool) -> api.ByteAutomaton:
        """The automaton of a request; the same one for equal requests, so that its masks are made once."""
        from r1core_numeric.automaton import ProvenanceAutomaton
        from r1core_numeric.grammar import Grammar
        from r1core_numeric.lexis import lexis

        key = (_key(example), requires)
        held = self._automata.get(key)
        if held is None or held[0] != found:
            grammar = Grammar(lexis(found.allowed, found.results), self._config.results)
            held = (found, ProvenanceAutomaton(grammar, requires=requires))
        _keep(self._automata, key, held, AUTOMATA)
        return held[1]


def _keep(where: OrderedDict[_K, _V], key: _K, value: _V, most: int) -> None:
    where[key] = value
    where.move_to_end(key)
    while len(where) > most:
        where.popitem(last=False)


def _key(example: api.Example) -> _Key:
    return example.id, repr((example.messages, sorted(example.fields.items(), key=lambda pair: pair[0])))


class NumericConstraint:
    """One of the two constraints, as its name says."""

    def __init__(self, name: str, config: NumericConfig, memory: Memory) -> None:
        self.name, self.requires = name, name == RESULTS
        self._config, self._memory = config, memory

    def start(self, request: api.DecodeRequest) -> api.ConstraintState | None:
        """The state of a request; None for `numeric/results` where no program has a result.

        Raises
        ------
        UserError : for a program or a table in no form that can be read.
        """
        found = self._memory.begin(request)
        if self.requires and not found.results:
            return None
        if not self.requires:
            for one in found.abstained:
                _log.warning("example %s: program %s abstains: %s", request.example.id, one.name, one.reason)
        return request.lift(self._memory.automaton(request.example, found, requires=self.requires))

    def recheck(self, example: api.Example, text: str) -> Sequence[api.Reason]:
        """What a finished text states without provenance, by the reader; or which results it lacks."""
        found = self._memory.of(example)
        if self.requires:
            lacking = [one for one in found.results if one.written.text not in text]
            return [api.Reason(RESULTS, "the result of a program is stated", one.written.text) for one in lacking]
        return [api.Reason(PROVENANCE, _RULE, n.text) for n in unsupported(text, found.allowed, self._config.reading)]

    def provenance(self, example: api.Example, text: str) -> api.JSON:
        """Where each number of an answer comes from, and the programs with their operands and steps."""
        if self.requires:
            return None
        found = self._memory.of(example)
        ended: tuple[Result | Abstained, ...] = (*found.results, *found.abstained)
        done = [result_to_json(one, found.slots) for one in ended]
        origins = provenance(text, found.allowed, self._config.reading)
        numbers: list[api.JSON] = [
            {"text": o.number.text, "start": o.number.start, "end": o.number.end, "sources": list(o.sources)}
            for o in origins
        ]
        return {"numbers": numbers, "programs": done}

    def fingerprint(self) -> str:
        """Hash of the configuration."""
        return hashlib.sha256(f"{self.name}\n{self._config.model_dump_json()}".encode()).hexdigest()
