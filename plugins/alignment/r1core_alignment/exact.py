"""Exact decimals in arrays: a value is `mantissa / 10**scale`, both integers, so that sums and differences are exact.

A float stands for the shortest decimal that reads back as it: what was written, up to 15 digits.
Not covered: more than 17 digits (`LIMIT`), infinities and NaN; they are told or refused, never rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, InvalidOperation

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from r1core.api import UserError

LIMIT = 2**59
"""Mantissas stay below it: the eight sources of a twelve-month sum then fit into an int64."""
TOO_LONG = -1
"""In place of a scale: the number has more digits than a mantissa below `LIMIT` holds."""
_WHOLE = 2**53
"""Every integer up to it is a float64."""
_TRIED = 6
"""Decimal places tried for whole columns of floats at once; what has more is read one by one."""
Amounts = tuple[NDArray[np.int64], NDArray[np.int8]]


def column_of_amounts(column: pd.Series, where: Callable[[int], str]) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    """Mantissas and scales of a column of numbers: ints, floats, decimals, or texts of them; `TOO_LONG` where one has
    more digits than are kept.

    Raises
    ------
    UserError : for what is no finite number, naming the place by `where(position)`.
    """
    kind = column.dtype.kind if isinstance(column.dtype, np.dtype) else "O"
    if kind in "iuf":
        values = column.to_numpy()
        bad = ~np.isfinite(values) if kind == "f" else np.zeros(len(values), bool)
        if bad.any():
            at = int(np.argmax(bad))
            raise _no_number(where(at), values[at])
        return _of_floats(values.astype(np.float64)) if kind == "f" else _of_integers(values)
    return _of_objects(column.to_numpy(dtype=object), where)


def combined(
    mantissas: NDArray[np.int64], scales: NDArray[np.int8], signs: NDArray[np.int64], what: Callable[[int], str]
) -> Amounts:
    """Sums of signed amounts along the last axis, (n, k) each; exact.

    Raises
    ------
    UserError : where a sum would need more digits than an int64 has, naming it by `what(position)`.
    """
    if not scales.any() and mantissas.size and float(np.abs(mantissas).max()) * mantissas.shape[1] < 2.0**62:
        return (mantissas * signs).sum(axis=1), scales[:, 0]  # whole numbers, as amounts mostly are
    scale = scales.max(axis=1)
    shift = np.where(mantissas != 0, scale[:, None] - scales, 0)
    over = (np.abs(mantissas) * 10.0**shift).sum(axis=1) >= 2.0**62
    if over.any():
        name = what(int(np.argmax(over)))
        raise UserError(
            f"{name}: its amounts differ by more digits than can be added exactly", fix="name it as not additive"
        )
    return (mantissas * np.power(10, shift, dtype=np.int64) * signs).sum(axis=1), scale


def as_floats(mantissa: NDArray[np.int64], scale: NDArray[np.int8]) -> NDArray[np.float64]:
    """The nearest float64 of each amount."""
    made = mantissa / 10.0 ** scale.astype(np.int64)  # correctly rounded while both operands are exact
    for at in np.flatnonzero((scale > 22) | ((np.abs(mantissa) > _WHOLE) & (scale > 0))):
        made[at] = float(Decimal(int(mantissa[at])).scaleb(-int(scale[at])))
    return made


def as_numbers(mantissa: NDArray[np.int64], scale: NDArray[np.int8]) -> NDArray[np.object_]:
    """The amounts themselves: `int` where whole, else `Decimal`."""
    made = mantissa.astype(object)
    for at in np.flatnonzero(scale):
        amount = Decimal(made[at]).scaleb(-int(scale[at])).normalize()
        made[at] = int(amount) if amount == amount.to_integral_value() else amount
    return made


def over_floats(mantissa: NDArray[np.int64], scale: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Which of them are whole numbers over 2**53, so that float64 may not hold them."""
    return (np.abs(mantissa) > _WHOLE) & (scale == 0)


def _of_integers(values: NDArray[np.integer]) -> Amounts:
    large = (values >= LIMIT) | (values <= -LIMIT) if values.dtype.kind == "i" else values >= LIMIT
    return np.where(large, 0, values).astype(np.int64), np.where(large, TOO_LONG, 0).astype(np.int8)


def _of_floats(values: NDArray[np.float64]) -> Amounts:
    mantissa, scale = np.zeros(len(values), np.int64), np.zeros(len(values), np.int8)
    left = np.arange(len(values))
    for places in range(_TRIED + 1):
        power = 10.0**places
        tried = np.rint(values[left] * power)
        found = (np.abs(tried) < _WHOLE) & (tried / power == values[left])
        mantissa[left[found]], scale[left[found]] = tried[found].astype(np.int64), places
        left = left[~found]
        if not left.size:
            break
    for at in left:
        mantissa[at], scale[at] = _split(Decimal(repr(float(values[at]))))
    return mantissa, scale


def _of_objects(values: NDArray[np.object_], where: Callable[[int], str]) -> Amounts:
    mantissa, scale = np.zeros(len(values), np.int64), np.zeros(len(values), np.int8)
    for at, value in enumerate(values):
        if type(value) is int and -LIMIT < value < LIMIT:
            mantissa[at] = value
            continue
        if isinstance(value, bool | np.bool_):
            raise _no_number(where(at), value)
        if isinstance(value, float | np.floating):
            amount = Decimal(repr(float(value)))
        else:
            try:
                amount = Decimal(value.strip() if isinstance(value, str) else value)
            except (InvalidOperation, TypeError, ValueError):
                raise _no_number(where(at), value) from None
        if not amount.is_finite():
            raise _no_number(where(at), value)
        mantissa[at], scale[at] = _split(amount)
    return mantissa, scale


def _split(amount: Decimal) -> tuple[int, int]:
    """Mantissa and scale of a finite number."""
    sign, digits, exponent = amount.as_tuple()
    mantissa, power = int("".join(map(str, digits))), int(exponent)
    while power < 0 and mantissa % 10 == 0 and mantissa:
        mantissa, power = mantissa // 10, power + 1
    if mantissa == 0:
        return 0, 0
    if power > 18 or power < -100 or mantissa * 10 ** max(power, 0) >= LIMIT:
        return 0, TOO_LONG
    return (-1 if sign else 1) * mantissa * 10 ** max(power, 0), max(-power, 0)


def _no_number(place: str, value: object) -> UserError:
    return UserError(
        f"{place}, column 'value': found {value!r}, expected a finite number",
        fix="leave rows without a value out; write 1234.5, without separators or a currency",
    )
