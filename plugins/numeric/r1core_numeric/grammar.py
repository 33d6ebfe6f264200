"""Which texts hold no number without provenance, symbol by symbol: a nondeterministic automaton.

A text is free text and stretches in turn. A stretch is a rendering of a claim, a literal of the input, or a result;
every digit lies in one, and what stands before and behind it cannot make another number of it (no digit, letter,
sign, currency or scale that is not the stretch's own). Free text holds no number in words. Items are the ways in
which a text so far can be read as such; a state is a set of them, and a text is refused when none is left.

    Free(at, words, left, due)      free text; `at` says what may follow, `words` are places in the watch trie
    Lead, Digits, Suffix, Literal, Written    inside of a stretch
    Behind(at, left, due)           right behind a stretch
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Literal

from r1core_numeric import watch
from r1core_numeric.items import Behind, Digits, Free, Item, Lead, Spelled, State, Suffix, Which, Written
from r1core_numeric.lexis import BARE, BEHIND, DATED, MEASURED, MONEY, NAMED, SLASHED, WORDS, Lexis
from r1core_numeric.symbols import CONTROL, DASH, GROUP_SPACE, INVISIBLE, LETTER, NEUTRAL, NUMERIC
from r1core_numeric.tries import Trie

Mode = Literal["first", "anywhere", "answer"]

DIGITS = "0123456789"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
BLANKS = (" ", GROUP_SPACE, "\n")
_OPEN, _CLOSE = "([{", ")]}"
_QUIET = ('"', "`", "*", "|", "<", ">", "~", NEUTRAL)
_MONEY_SIGNS = "€£₹"


class Grammar:
    """The automaton of one request.

    Parameters
    ----------
    mode : where results have to stand: `first` (before any other quantity), `anywhere`, or `answer` (nothing but them).
    """

    def __init__(self, lexis: Lexis, mode: Mode = "first") -> None:
        self.lexis, self.mode, self.count = lexis, mode, len(lexis.results)
        self._watch = watch.words()
        self.verbatim = frozenset(character for text, _ in lexis.results for character in text)
        alone = mode == "answer" and self.count
        self.start: State = frozenset([Free("due" if alone else "begin", (), 0, 0)])

    def step(self, state: State, sign: str, character: str = "") -> State:
        """The state behind a symbol; empty where it is refused.

        Parameters
        ----------
        character : what the symbol was written as, where that is in `verbatim`: results are written as they are.
        """
        if sign in (NUMERIC, CONTROL):
            return frozenset()
        return frozenset(new for item in state for new in self._after(item, sign, character))

    def may_end(self, item: Item) -> bool:
        """Whether a text may end in this item."""
        if isinstance(item, Free):
            return item.at != "word" or not self._refused(item.words, item.left)
        if isinstance(item, Digits):
            return bool(self._complete(item))
        if isinstance(item, Suffix):
            return bool(self._suffixes(item).ends[item.node] & item.forms)
        if isinstance(item, Spelled):
            return self._spellings(item).ends[item.node] != 0
        return isinstance(item, Behind)

    def _after(self, item: Item, sign: str, character: str) -> Iterator[Item]:
        if isinstance(item, Free):
            word = item.at == "word"
            yield from _in_word(item, sign, item.due < self.count) if word else self.free(item, sign, character)
        elif isinstance(item, Behind):
            yield from self._behind(item, sign)
        elif isinstance(item, Digits):
            yield from self._digits(item, sign)
        elif isinstance(item, Suffix):
            yield from self._suffix(item, sign)
        elif isinstance(item, Lead):
            yield from self._lead(item, sign)
        elif isinstance(item, Spelled):
            yield from self._spelled(item, sign)
        else:
            yield from self._written(item, character)

    # -- stretches ------------------------------------------------------------------------------------------------

    def _begin(self, item: Free, sign: str, character: str) -> Iterator[Item]:
        """The stretches that may begin with this symbol."""
        pending = item.due < self.count
        if pending and item.at != "bracket" and item.at != "inner":
            yield from self._written(Written(0, item.due), character)
        if item.at in ("due", "only"):
            return
        ranged = item.at == "ranged"
        if not ranged:
            only_names = pending and self.mode == "first"
            of: Which = "dates" if item.at in ("bracket", "inner") else "names" if only_names else "literals"
            yield from self._spelled(Spelled(0, of, item.due), sign)
        if item.at in ("begin", "ranged", "line") and not (pending and self.mode == "first"):
            yield from self._lead(Lead(0, ranged, item.due), sign)

    def _lead(self, item: Lead, sign: str) -> Iterator[Item]:
        leads = self.lexis.leads
        ends = leads.ends[item.node]
        if ends and sign in DIGITS:
            yield from self._digits(Digits(ends.bit_length() - 1, 0, item.ranged, item.due), sign)
        if (node := leads.next(item.node, _blank(sign))) >= 0:
            yield Lead(node, item.ranged, item.due)

    def _digits(self, item: Digits, sign: str) -> Iterator[Item]:
        digits, forms = self.lexis.digits, self.lexis.lead_forms[item.lead]
        node = digits.next(item.node, sign)
        if node >= 0 and digits.below[node] & forms:
            yield replace(item, node=node)
        if ends := digits.ends[item.node] & forms:
            yield from self._suffix(Suffix(item.lead, ends, 0, item.ranged, item.due), sign)

    def _complete(self, item: Digits) -> int:
        ends = self.lexis.digits.ends[item.node]
        tries = self.lexis.ranged if item.ranged else self.lexis.suffixes
        return ends & tries[item.lead].ends[0]

    def _suffixes(self, item: Suffix) -> Trie:
        return (self.lexis.ranged if item.ranged else self.lexis.suffixes)[item.lead]

    def _suffix(self, item: Suffix, sign: str) -> Iterator[Item]:
        trie = self._suffixes(item)
        node = trie.next(item.node, _blank(sign) if sign != "\n" else sign)
        if node >= 0 and trie.below[node] & item.forms:
            yield replace(item, node=node)
        ends = trie.ends[item.node] & item.forms
        bare = item.node in (0, trie.children[0].get(")"))
        kept = (~0 if bare else ~BARE) & (~MEASURED if self.lexis.lead_money[item.lead] else ~0)
        for left in {left & kept for form, left in self.lexis.left_by.items() if form & ends}:
            yield from self._behind(Behind(False, left, item.due), sign)

    def _spellings(self, item: Spelled) -> Trie:
        return {"literals": self.lexis.literals, "names": self.lexis.names, "dates": self.lexis.dates}[item.of]

    def _spelled(self, item: Spelled, sign: str) -> Iterator[Item]:
        trie = self._spellings(item)
        if (node := trie.next(item.node, _blank(sign))) >= 0:
            yield replace(item, node=node)
        for bit, left in enumerate(self.lexis.behind.all):
            if trie.ends[item.node] >> bit & 1:
                yield from self._behind(Behind(False, left, item.due), sign)

    def _written(self, item: Written, character: str) -> Iterator[Item]:
        text, left = self.lexis.results[item.due]
        if item.at < len(text) and text[item.at] == character:
            done = item.at + 1 == len(text)
            yield Behind(False, left, item.due + 1) if done else Written(item.at + 1, item.due)

    # -- behind a stretch -------------------------------------------------------------------------------------------

    def _behind(self, item: Behind, sign: str) -> Iterator[Item]:
        left, due = item.left, item.due
        sign = LETTER if sign == "_" else sign
        if self.mode == "answer" and self.count:
            if sign in (",", ";", *BLANKS) and due < self.count:
                yield Free("due", (), 0, due)
            return
        if sign.isalnum() or sign in (LETTER, INVISIBLE, "%", "‰", "‱") or sign in _MONEY_SIGNS:
            return
        if left & NAMED and sign in ("-", DASH, "/", "("):
            return
        if item.mark:
            if sign in BLANKS:
                yield Free("sign" if left & DATED else "begin", (), 0, due)
            else:
                yield item if sign in ".,)\"'" else Free("glued", (), 0, due)
        elif sign in BLANKS:
            yield self._blank_behind(left, due, sign)
        elif sign in ".,":
            yield replace(item, mark=True)
        elif sign in ("-", DASH, "/"):
            yield Free("dash", (), left | (SLASHED if sign == "/" else 0), due)
        elif sign in _CLOSE or sign in "\"'`*>" or sign == NEUTRAL:
            yield item
        else:
            yield self._punctuation_behind(left, due, sign)

    def _blank_behind(self, left: int, due: int, sign: str) -> Free:
        return Free("line" if sign == "\n" and not left & DATED else "spaced", (), left, due)

    def _punctuation_behind(self, left: int, due: int, sign: str) -> Free:
        if sign in ";:!?":
            return Free("glued", (), 0, due)
        if sign in "|=":
            return Free("due" if sign == "=" and due < self.count else "begin", (), 0, due)
        if sign in _OPEN:
            return Free("inner", (), left, due)
        return Free("sign", (), 0, due)

    # -- free text ------------------------------------------------------------------------------------------------

    def free(self, item: Free, sign: str, character: str = "") -> Iterator[Item]:
        """The items behind free text and a symbol."""
        if item.at in ("begin", "ranged", "line", "due", "only", "bracket", "inner"):
            yield from self._begin(item, sign, character)
        sign = LETTER if sign == "_" else sign  # it joins digits to a name, as a letter does
        if item.at in ("due", "only"):  # one blank, lest a model goes on with blanks for ever
            if sign in BLANKS and item.at == "due":
                yield replace(item, at="only")
        elif sign in LETTERS or sign == LETTER:
            yield from self._letter(item, sign)
        elif sign == INVISIBLE:
            yield from self._invisible(item)
        elif sign not in DIGITS:
            if item.at == "word" and self._refused(item.words, item.left):
                return
            if sign in BLANKS:
                yield self._blank(item, sign)
            elif item.at in ("spaced", "line", "inner"):
                yield from self._spaced(item, sign)
            else:
                yield self._punctuation(item, sign)

    def _letter(self, item: Free, sign: str) -> Iterator[Item]:
        if sign == LETTER:
            yield Free("word", (), 0, item.due)
            return
        trie, places = self._watch, item.words
        if item.at != "word":
            places = (*places, 0)
        following = tuple(sorted({n for n in (trie.next(p, sign) for p in places) if n >= 0}))
        for node in following:
            bits = trie.ends[node]
            if bits & watch.NUMBER_PREFIX or (item.left and bits & watch.AFTER_PREFIX):
                return
        yield Free("word", following, item.left if following else 0, item.due)

    def _refused(self, words: tuple[int, ...], left: int) -> bool:
        """Whether a word that ends here is a number, or changes the one before it."""
        bits = self._bits(words)
        return bool(
            bits & watch.NUMBER
            or (left & BEHIND and bits & watch.AFTER)
            or (left & MEASURED and bits & watch.MEASURE)
            or (left & MONEY and bits & watch.PER_SHARE)
            or (left & MONEY and left & SLASHED and bits & watch.SLASH_SHARE)
        )

    def _bits(self, words: tuple[int, ...]) -> int:
        bits = 0
        for node in words:
            bits |= self._watch.ends[node]
        return bits

    def _invisible(self, item: Free) -> Iterator[Item]:
        if item.at in ("sign", "bracket") or (item.at == "word" and not item.words):
            yield item
        elif item.at in ("begin", "ranged", "glued", "operator"):
            yield Free("glued", (), 0, item.due)

    def _blank(self, item: Free, sign: str) -> Free:
        if item.at != "word":
            at = {"glued": "begin", "operator": "begin", "dash": "sign"}.get(item.at, item.at)
            if item.at == "spaced" and sign == "\n" and not item.left & DATED:
                at = "line"
            return replace(item, at=at, words=tuple(sorted({*item.words, *self._phrases(item.words)})))
        bits, ends = self._bits(item.words), ""
        goes_on = (item.left & WORDS and bits & watch.AND) or (item.left & NAMED and bits & watch.RANGE)
        if bits & watch.LEAD or goes_on:
            ends = "sign"
        elif item.left & BARE and bits & watch.RANGE:
            ends = "ranged"
        words = self._phrases(item.words)
        return Free(ends or "begin", words, item.left if words else 0, item.due)

    def _phrases(self, words: tuple[int, ...], sign: str = " ") -> tuple[int, ...]:
        """The places of watched phrases that go on behind a word."""
        return tuple(sorted({n for n in (self._watch.next(w, sign) for w in words) if n >= 0}))

    def _spaced(self, item: Free, sign: str) -> Iterator[Item]:
        """A symbol behind a number and a space (or a line end, or an opening parenthesis)."""
        due = item.due
        if sign in "%‰‱" or sign in _MONEY_SIGNS:
            return
        if sign in _OPEN:
            yield replace(item, at="inner", words=())
        elif sign == "'":
            yield Free("sign", (), 0, due)
        elif sign in "+×÷*" and item.at == "spaced":
            yield Free("operator", (), 0, due)
        elif sign in ".,)]}\"'`" or sign == NEUTRAL:
            yield item
        else:
            yield self._punctuation_behind(item.left, due, sign)

    def _punctuation(self, item: Free, sign: str) -> Free:
        """A symbol in free text that is neither letter, digit nor space."""
        words: tuple[int, ...] = ()
        left = 0
        named = item.at == "word" and bool(self._bits(item.words) & watch.LEAD)
        lead = item.at == "sign" or (named and sign in ".,([{")
        if sign in _OPEN:
            at = "sign" if lead else "bracket"
        elif sign == "=":
            at = "due" if item.due < self.count else "begin"
        elif sign == "|":
            at = "begin"
        elif lead or (sign == "'" and item.at in ("begin", "ranged")):
            at = "sign"
        elif sign in _QUIET:
            at = item.at if item.at in ("begin", "ranged", "bracket") else "glued"
        elif sign in _CLOSE or sign in ";:!?.,'":
            at = "glued"
        else:
            at = "sign"
        if item.at == "word" and sign in ("-", DASH, "."):
            words = self._phrases(item.words, "." if sign == "." else " ")
            left = item.left if words else 0
        return Free(at, words, left, item.due)


@lru_cache(maxsize=262_144)
def _in_word(item: Free, sign: str, pending: bool) -> tuple[Item, ...]:
    """What follows inside of a word: the same for all requests, but for whether a result is due."""
    return tuple(_plain(item.due + pending).free(item, sign))


@lru_cache(maxsize=64)
def _plain(count: int) -> Grammar:
    """A grammar of no claims, with so many results."""
    made = Grammar(Lexis())
    made.count = count
    return made


def _blank(sign: str) -> str:
    return " " if sign in BLANKS else sign
