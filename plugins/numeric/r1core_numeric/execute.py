"""Runs a program over slots, exactly, and keeps where every number came from; it abstains with a reason, never guesses.

All arithmetic is rational (`fractions.Fraction`). Only a growth rate or a rate of return that is irrational is a root
to 50 significant digits, and then says so. Rounding is `formats.write`'s business alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from r1core.api import JSON, UserError
from r1core_numeric.dimensions import CONSTANT, Dimension, Mismatch, dimension_of, product, quotient, together
from r1core_numeric.formats import Written, write
from r1core_numeric.programs import CONSTANTS, Apply, At, Constant, Declared, Line, Node, Program, Slot
from r1core_numeric.roots import NoRoot, rate_of_return, root
from r1core_numeric.values import Number, Unit

MAX_BITS = 200_000  # of a numerator or denominator, past which a program is stopped
_PERCENTAGE = Dimension(shown="percent")


class _Abstain(Exception):
    """Why a program has no result."""


@dataclass(frozen=True, slots=True)
class Step:
    """One operation, as it was done: operands and outcome as text."""

    op: str
    operands: tuple[str, ...]
    value: str


@dataclass(frozen=True, slots=True)
class Result:
    """What a program gives.

    Parameters
    ----------
    value : in one unit of its dimension; a percentage as a pure number.
    exact : False where it is a root to 50 significant digits.
    written : as the program's format writes it.
    slots : the indices of the numbers that it rests on.
    """

    name: str
    value: Fraction
    unit: Unit
    exact: bool
    written: Written
    slots: tuple[int, ...]
    steps: tuple[Step, ...]
    assumptions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Abstained:
    """A program without a result, and why."""

    name: str
    reason: str


@dataclass(slots=True)
class _Value:
    value: Fraction
    dimension: Dimension
    said: str
    exact: bool = True


@dataclass(slots=True)
class _Run:
    """One execution: what was used, done and assumed."""

    slots: Sequence[Number]
    used: dict[int, None] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    assumed: dict[str, None] = field(default_factory=dict)

    def all_of(self, node: Node) -> list[_Value]:
        """The values of an operand; a column or row has many."""
        if isinstance(node, Line):
            return [self._slot(at) for at in self._line(node)]
        return [self.value(node)]

    def value(self, node: Node) -> _Value:
        if isinstance(node, Slot):
            return self._slot(node.index)
        if isinstance(node, At):
            return self._slot(self._cell(node))
        if isinstance(node, Constant):
            return _Value(Fraction(CONSTANTS[node.name]), CONSTANT, node.name)
        if isinstance(node, Declared):
            number = Number(str(node.amount), 0, 0, "quantity", node.amount, unit=node.unit)
            self.assumed[f"{node.amount:f} {node.unit} is declared: {node.why}"] = None
            return _Value(number.fraction, dimension_of(node.unit), f"{node.amount:f} (declared)")
        if isinstance(node, Line):
            raise _Abstain("a column or row stands where one number is needed")
        return self._apply(node)

    def _slot(self, index: int) -> _Value:
        if index >= len(self.slots):
            raise _Abstain(f"slot {index} does not exist: {len(self.slots)} numbers were read")
        number = self.slots[index]
        if number.amount is None:
            why = f" ({number.note})" if number.note else ""
            raise _Abstain(f"slot {index}, {number.text!r} at {number.place()}, is no quantity but {number.kind}{why}")
        self.used[index] = None
        return _Value(number.fraction, dimension_of(number.unit), f"{number.text} [{index}]")

    def _cell(self, at: At) -> int:
        found = at.among(self.slots)
        if len(found) != 1:
            raise _Abstain(f"the cell at row {at.row}, column {at.column} holds {len(found) or 'no'} quantities")
        return found[0]

    def _line(self, line: Line) -> list[int]:
        low, high = line.within or (0, 1 << 62)
        found = []
        for at, number in enumerate(self.slots):
            if number.cell is None or number.kind not in ("quantity", "unread"):
                continue
            along, across = number.cell.row, number.cell.column
            if line.axis == "row":
                along, across = across, along
            if across == line.index and low <= along <= high:
                found.append(at)
        if not found:
            raise _Abstain(f"{line.axis} {line.index} of the table holds no quantity there")
        return found

    def _apply(self, node: Apply) -> _Value:
        args = [value for arg in node.args for value in self.all_of(arg)]
        done = _OPERATIONS[node.op](self, args)
        if max(done.value.numerator.bit_length(), done.value.denominator.bit_length()) > MAX_BITS:
            raise _Abstain(f"`{node.op}` gives a number of more than {MAX_BITS} bits")
        done.exact = done.exact and all(arg.exact for arg in args)
        done.said = f"{node.op}#{len(self.steps) + 1}"
        self.steps.append(Step(node.op, tuple(arg.said for arg in args), _told(done.value)))
        return done

    def together(self, args: Sequence[_Value]) -> Dimension:
        """The one dimension of numbers that are added or compared."""
        whole = args[0].dimension
        for arg in args[1:]:
            whole, assumed = together(whole, arg.dimension)
            if assumed:
                self.assumed[assumed] = None
        return whole


def execute(program: Program, slots: Sequence[Number]) -> Result | Abstained:
    """Run a program over the numbers that were read.

    Abstains where an operand is missing or no quantity, units do not go together, something is divided by zero, or a
    rate does not exist or is not the only one.

    Raises
    ------
    UserError : where the program's format does not fit the unit of its result (money as a percentage).
    """
    run = _Run(slots)
    try:
        done = run.value(program.expression)
    except (_Abstain, Mismatch, NoRoot) as why:
        return Abstained(program.name, str(why))
    unit = done.dimension.unit
    if unit is None:
        return Abstained(program.name, f"the result counts in {done.dimension}, which no unit says")
    written = write(done.value, unit, program.format)
    steps, assumed = tuple(run.steps), tuple(run.assumed)
    return Result(program.name, done.value, unit, done.exact, written, tuple(sorted(run.used)), steps, assumed)


def attempt(program: Program, slots: Sequence[Number]) -> Result | Abstained:
    """Run a program that nobody wrote but a layer: one whose format does not fit its result abstains as well."""
    try:
        return execute(program, slots)
    except UserError as why:
        return Abstained(program.name, str(why))


def _told(value: Fraction) -> str:
    """A value in a step: exact where it is short, else as a quotient or its length."""
    text = str(value)
    return text if len(text) <= 120 else f"a quotient of {len(text)} characters"


def _add(run: _Run, args: Sequence[_Value]) -> _Value:
    dimension = run.together(args)
    return _Value(sum((a.value for a in args), Fraction(0)), dimension, "")


def _subtract(run: _Run, args: Sequence[_Value]) -> _Value:
    return _Value(args[0].value - args[1].value, run.together(args), "")


def _multiply(run: _Run, args: Sequence[_Value]) -> _Value:
    whole = _Value(args[0].value, args[0].dimension, "")
    for arg in args[1:]:
        dimension = product(whole.dimension, arg.dimension)
        if whole.dimension.constant and not arg.dimension.constant:
            dimension = product(arg.dimension, whole.dimension)
        whole = _Value(whole.value * arg.value, dimension, "")
    return whole


def _nonzero(value: Fraction, what: str) -> Fraction:
    if not value:
        raise _Abstain(f"{what} is zero, nothing can be divided by it")
    return value


def _divide(run: _Run, args: Sequence[_Value]) -> _Value:
    below = _nonzero(args[1].value, "the divisor")
    dimension, assumed = quotient(args[0].dimension, args[1].dimension)
    if assumed:
        run.assumed[assumed] = None
    return _Value(args[0].value / below, dimension, "")


def _negate(run: _Run, args: Sequence[_Value]) -> _Value:
    return _Value(-args[0].value, args[0].dimension, "")


def _absolute(run: _Run, args: Sequence[_Value]) -> _Value:
    return _Value(abs(args[0].value), args[0].dimension, "")


def _average(run: _Run, args: Sequence[_Value]) -> _Value:
    whole = _add(run, args)
    return _Value(whole.value / len(args), whole.dimension, "")


def _count(run: _Run, args: Sequence[_Value]) -> _Value:
    return _Value(Fraction(len(args)), CONSTANT, "")


def _maximum(run: _Run, args: Sequence[_Value]) -> _Value:
    return _Value(max(a.value for a in args), run.together(args), "")


def _minimum(run: _Run, args: Sequence[_Value]) -> _Value:
    return _Value(min(a.value for a in args), run.together(args), "")


def _percent_change(run: _Run, args: Sequence[_Value]) -> _Value:
    run.together(args)
    new, old = args[0].value, _nonzero(args[1].value, "the old value")
    return _Value((new - old) / old, _PERCENTAGE, "")


def _ratio(run: _Run, args: Sequence[_Value]) -> _Value:
    run.together(args)
    return _Value(args[0].value / _nonzero(args[1].value, "the divisor"), Dimension(shown="multiple"), "")


def _periods(value: _Value) -> Fraction:
    if [name for name, _ in value.dimension.powers if name not in ("?", "year", "month", "day", "week")]:
        raise _Abstain(f"the number of periods counts in {value.dimension}")
    if value.value <= 0:
        raise _Abstain("the number of periods is not above zero")
    return value.value


def _cagr(run: _Run, args: Sequence[_Value]) -> _Value:
    run.together(args[:2])
    periods = _periods(args[2])
    end, start = args[0].value, args[1].value
    if end <= 0 or start <= 0:
        raise _Abstain("a growth rate needs an end and a start above zero")
    growth, exact = root(end / start, periods)
    return _Value(growth - 1, _PERCENTAGE, "", exact)


def _npv(run: _Run, args: Sequence[_Value]) -> _Value:
    rate, flows = args[0], args[1:]
    if not rate.dimension.is_pure:
        raise _Abstain(f"the rate counts in {rate.dimension}, expected a percentage")
    if rate.value <= -1:
        raise _Abstain("the rate is not above -100 %")
    factor = 1 / (1 + rate.value)
    total = Fraction(0)
    for flow in reversed(flows):
        total = total * factor + flow.value
    return _Value(total, run.together(flows), "")


def _irr(run: _Run, args: Sequence[_Value]) -> _Value:
    run.together(args)
    rate, exact = rate_of_return([a.value for a in args])
    return _Value(rate, _PERCENTAGE, "", exact)


_OPERATIONS: dict[str, Callable[[_Run, Sequence[_Value]], _Value]] = {
    "add": _add, "subtract": _subtract, "multiply": _multiply, "divide": _divide, "negate": _negate,
    "absolute": _absolute, "sum": _add, "average": _average, "count": _count, "maximum": _maximum, "minimum": _minimum,
    "percent_change": _percent_change, "ratio": _ratio, "cagr": _cagr, "npv": _npv, "irr": _irr,
}  # fmt: skip


def result_to_json(done: Result | Abstained, slots: Sequence[Number]) -> JSON:
    """A result with its provenance as JSON; an abstention with its reason."""
    if isinstance(done, Abstained):
        return {"name": done.name, "abstained": done.reason}
    return {
        "name": done.name,
        "text": done.written.text,
        "value": str(done.value),
        "unit": str(done.unit),
        "exact": done.exact,
        "slots": [{"slot": at, "text": slots[at].text, "place": slots[at].place()} for at in done.slots],
        "steps": [{"op": s.op, "operands": list(s.operands), "value": s.value} for s in done.steps],
        "assumptions": list(done.assumptions),
    }
