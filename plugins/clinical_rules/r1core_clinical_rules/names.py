"""Which of many names a text mentions, by the very rule that the automaton enforces, in one pass over the text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from r1core_clinical_rules.characters import BOUNDARY, SHORT, short_patterns, spell


class NameIndex:
    """Normalised names with what each stands for; several things may share a name."""

    def __init__(self, names: Iterable[tuple[str, int]]) -> None:
        self.meaning: dict[str, tuple[int, ...]] = {}
        for name, thing in names:
            self.meaning[name] = tuple(dict.fromkeys((*self.meaning.get(name, ()), thing)))
        self._long: dict[str, list[str]] = {}
        self._short: list[tuple[str, str]] = []
        for name in self.meaning:
            if len(name) >= SHORT:
                self._long.setdefault(name[:SHORT], []).append(name)
            else:
                self._short += [(pattern, name) for pattern in short_patterns(name)]

    def mentioned(self, text: str) -> set[int]:
        """What the names in this text stand for."""
        return {thing for name in self._names_in(text) for thing in self.meaning[name]}

    def _names_in(self, text: str) -> Iterator[str]:
        spelled = f"#{spell(text)}#".replace("##", "#")
        squeezed = spelled.replace(BOUNDARY, "")
        for at in range(len(squeezed) - SHORT + 1):
            for name in self._long.get(squeezed[at : at + SHORT], ()):
                if squeezed.startswith(name, at):
                    yield name
        for pattern, name in self._short:
            if pattern in spelled:
                yield name
