"""Which of many names a text mentions, by the very rule that the automaton enforces, in one pass over the text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from r1core_clinical_rules.characters import BOUNDARY, MIN_LENGTH, SPACE, is_name, symbols_of


class NameIndex:
    """Normalised names, of `MIN_LENGTH` symbols and more, with what each stands for; several things may share one."""

    def __init__(self, names: Iterable[tuple[str, int]]) -> None:
        self.meaning: dict[str, tuple[int, ...]] = {}
        for name, thing in names:
            self.meaning[name] = tuple(dict.fromkeys((*self.meaning.get(name, ()), thing)))
        self._by_start: dict[str, list[str]] = {}
        for name in self.meaning:
            self._by_start.setdefault(name[:MIN_LENGTH], []).append(name)

    def mentioned(self, text: str) -> set[int]:
        """What the names in this text stand for."""
        return {thing for name in self._names_in(text) for thing in self.meaning[name]}

    def _names_in(self, text: str) -> Iterator[str]:
        letters, gaps = [], [BOUNDARY]  # gaps[i] lies before letter i, the last one behind them all
        for symbol in "".join(map(symbols_of, text)):
            if symbol not in (BOUNDARY, SPACE):
                letters.append(symbol)
                gaps.append("")
            elif gaps[-1] != SPACE:
                gaps[-1] = symbol
        gaps[-1] = gaps[-1] or BOUNDARY
        squeezed = "".join(letters)
        for at in range(len(squeezed)):
            for name in self._by_start.get(squeezed[at : at + MIN_LENGTH], ()):
                end = at + len(name)
                if squeezed.startswith(name, at) and is_name(
                    gaps[at + 1 : end], starts=bool(gaps[at]), ends=bool(gaps[end])
                ):
                    yield name
