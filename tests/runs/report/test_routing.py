"""The report's heat map of routing: its figures from counts by hand, and what a reader and an attacker would see."""

from __future__ import annotations

import json
import math
import re
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jinja2")

from r1core.runs.report import build
from r1core.runs.report.data import ReportData
from r1core.runs.report.routing import maps, routed

ATTACK = "<script>alert(1)</script>"
EMPTY = ReportData("t", "d", "m", "2026-11-27")


def written(folder: Path, layers: int = 2, **changed: Any) -> Path:
    """Two domains, four experts in two groups: layer i swaps the groups where i is odd."""
    table = [[[6, 2, 1, 1], [0, 0, 15, 15]], [[1, 1, 6, 2], [15, 15, 0, 0]]]
    found = {
        "split": "test", "by": "label", "rows": 7, "tokens": 20, "experts": 4, "expert_groups": 2,
        "experts_per_token": 2, "domains": ["ear", "skin"], "counts": [table[i % 2] for i in range(layers)], **changed,
    }  # fmt: skip
    path = folder / "routing.json"
    path.write_text(json.dumps(found))
    return path


def test_figures_are_of_each_layer_apart(tmp_path: Path) -> None:
    found = routed(written(tmp_path))
    assert found is not None
    assert found.domains == (("ear", 5), ("skin", 15))
    assert [layer.shares for layer in found.layers] == [((0.8, 0.2), (0.0, 1.0)), ((0.2, 0.8), (1.0, 0.0))]
    load = [6, 2, 16, 16]  # the two layers' loads add up to an even one
    for layer in found.layers:
        assert layer.spread == pytest.approx(statistics.pstdev(load) / 10)
        assert (layer.busiest, layer.idle) == (1.6, 0)
    assert found.even == pytest.approx(math.sqrt(4 / 40))


def test_a_model_without_routers_has_no_section(tmp_path: Path) -> None:
    assert routed(tmp_path / "routing.json") is None
    assert "expert" not in build(EMPTY)


def test_every_number_is_read_in_the_page_and_nothing_is_run(tmp_path: Path) -> None:
    found = routed(written(tmp_path, domains=[ATTACK, "skin"]))
    page = build(replace(EMPTY, routed=found))
    assert ATTACK not in page
    assert page.count("<script") == 0
    cells = re.findall(r'--share:([\d.]+)" title="([^"]*)">(\d+)<', page)
    assert [depth for depth, _, _ in cells][:4] == ["0.800", "0.200", "0.000", "1.000"]
    assert [text for _, _, text in cells][:4] == ["80", "20", "0", "100"]
    assert cells[2][1] == "layer 0, skin, group 0: 0.0 % of 15 tokens"
    assert "Each of 20 tokens of 7 test rows goes to 2 of 4 experts" in page
    assert "spread of 0.316" in page
    assert build(replace(EMPTY, routed=found), redact=True).count("--share") == page.count("--share")


def test_of_many_layers_three_are_shown_and_the_others_are_one_click_away(tmp_path: Path) -> None:
    found = routed(written(tmp_path, layers=9))
    assert found is not None
    assert [one.number for one in maps(found) if one.shown] == [0, 4, 8]
    page = build(replace(EMPTY, routed=found))
    assert page.count('<figure class="layer">') == 9
    assert "The other 6 layers" in page
