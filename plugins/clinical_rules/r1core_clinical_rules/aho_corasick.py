"""Aho and Corasick's automaton (CACM 1975) as one dense table: every pattern at once, one lookup a symbol."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np


class AhoCorasick:
    """Finds patterns over a small alphabet of symbols `0 .. n_symbols - 1`.

    Attributes
    ----------
    next : (N, n_symbols) int32, the state after each symbol; state 0 is the start. A state that ends a pattern is
        left as any other one: callers stop there.
    outputs : per state, the indices of the patterns that end there.
    last : (N,) int32, the symbol that a state was entered by, -1 for the start (which any symbol may lead to).
    children : per state, the states that go on with a pattern, by symbol.
    order : the states from the start on, breadth first; `fallback` : (N,) the longest proper end that is a state.
    """

    def __init__(self, patterns: Sequence[Sequence[int]], n_symbols: int) -> None:
        self.children: list[dict[int, int]] = [{}]
        children = self.children
        self.outputs: list[tuple[int, ...]] = [()]
        last = [-1]
        for index, pattern in enumerate(patterns):
            node = 0
            for symbol in pattern:
                if symbol not in children[node]:
                    children[node][symbol] = len(children)
                    children.append({})
                    self.outputs.append(())
                    last.append(symbol)
                node = children[node][symbol]
            self.outputs[node] += (index,)
        self.next = np.zeros((len(children), n_symbols), dtype=np.int32)
        self.last = np.array(last, dtype=np.int32)
        self.order: list[int] = []
        self.fallback = np.zeros(len(children), dtype=np.int32)
        queue = deque([(0, 0)])  # (state, where it falls back to), breadth first
        while queue:
            node, fallback = queue.popleft()
            self.order.append(node)
            self.fallback[node] = fallback
            row = self.next[node]
            if node:
                row[:] = self.next[fallback]
                self.outputs[node] += self.outputs[fallback]
            for symbol, child in children[node].items():
                queue.append((child, int(row[symbol]) if node else 0))
                row[symbol] = child
