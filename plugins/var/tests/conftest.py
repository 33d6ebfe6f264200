"""Series that the tests share: index returns from arch's wheel, and one drawn here."""

from __future__ import annotations

import csv
import gzip
import importlib.util
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def sp500() -> np.ndarray:
    """(5030,) percent returns of the S&P 500, 1999 to 2018."""
    spec = importlib.util.find_spec("arch")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("arch is not installed: it brings the prices and the reference fits")
    path = Path(spec.submodule_search_locations[0]) / "data/sp500/sp500.csv.gz"
    with gzip.open(path, "rt", newline="") as file:
        closes = np.array([float(row["Adj Close"]) for row in csv.DictReader(file)])
    return 100 * np.diff(closes) / closes[:-1]


@pytest.fixture(scope="session")
def drawn() -> np.ndarray:
    """(700,) returns as fractions with clustered volatility."""
    rng = np.random.default_rng(20)
    h, returns = 1e-4, []
    for _ in range(700):
        returns.append(np.sqrt(h) * rng.standard_t(5) * np.sqrt(3 / 5))
        h = 2e-6 + 0.1 * returns[-1] ** 2 + 0.88 * h
    return np.array(returns)
