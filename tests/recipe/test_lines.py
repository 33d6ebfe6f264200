from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from r1core.recipe.lines import index

DOCUMENT = '''\
a = 1
"b.c" . d = "x # y"  # comment

[t]
x = [1, # one
  2,
  {p = 1, q.r = "]"}]
s = """
many ] lines " \\"""
"""
[[rows]]
n = 1
[rows.sub]
z = 2
[[rows]]
n = {}
d = 2020-01-01 10:00:00
'''


def test_tables_keys_arrays_and_strings() -> None:
    found = index(DOCUMENT)
    expected = {
        "a": 1, "b.c.d": 2, "t": 4, "t.x": 5, "t.x.0": 5, "t.x.1": 6, "t.x.2": 7, "t.x.2.p": 7, "t.x.2.q.r": 7,
        "t.s": 8, "rows": 11, "rows.0.n": 12, "rows.0.sub": 13, "rows.0.sub.z": 14, "rows.1": 15, "rows.1.n": 16,
        "rows.1.d": 17,
    }  # fmt: skip
    assert {key: found[key] for key in expected} == expected


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inner:
        yield ".".join((*path, str(name)))
        yield from leaves(one, (*path, str(name)))


NAMES = st.text(st.sampled_from('abk_-9 .#="[]'), min_size=1, max_size=4)
SCALARS = st.one_of(
    st.integers(-9, 10**6), st.booleans(), st.text(st.sampled_from("ab\"\\#[]{},=' é"), max_size=6), st.floats(-1, 1)
)
INLINE = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=6
)


def written(value: Any) -> str:
    if isinstance(value, list):
        return "[ # open\n" + "".join(f"  {written(one)}, # next ]\n" for one in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} = {written(one)}" for name, one in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)


@given(st.dictionaries(NAMES, INLINE, max_size=4), st.dictionaries(NAMES, INLINE, max_size=3))
def test_every_key_is_found_at_a_line_that_holds_it(top: dict[str, Any], table: dict[str, Any]) -> None:
    text = "".join(f"{json.dumps(name)} = {written(value)}\n" for name, value in top.items())
    text += '["last table"]\n' + "".join(f"{json.dumps(name)} = {written(value)}\n" for name, value in table.items())
    data = tomllib.loads(text) if "last table" not in top else {}
    if not data:
        return
    found, lines = index(text), text.splitlines()
    assert set(leaves(data)) == found.keys()
    for name in top:
        assert lines[found[name] - 1].startswith(json.dumps(name))
