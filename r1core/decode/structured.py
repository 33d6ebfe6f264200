"""Structured answers through llguidance: a JSON Schema or a regular expression, as states to intersect with others.

llguidance's matcher changes as it reads; here each state keeps a copy of its own, so that beams fork freely. The
recheck shares nothing with it: `jsonschema` (numbers as exact decimals) and Python's own `re`.

JSON is written with ", " and ": " between parts and no other whitespace. What llguidance does not implement of a
schema is refused before anything is generated.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import json
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from r1core.api import ConstraintState, DecodeRequest, Example, R1Error, Reason, TokenMask, UserError
from r1core.decode.constraints import Request, is_allowed
from r1core.decode.vocabulary import Vocabulary

_INSTALL = "pip install 'r1core[structured]'"
_WRITTEN = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_serial = itertools.count()


def _llguidance() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise UserError("structured answers need llguidance, which is not installed", fix=_INSTALL) from error
    return llguidance


class _Tokens:
    """A vocabulary as llguidance takes it."""

    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.eos_token_id = min(vocabulary.eos_ids)
        self.tokens = list(vocabulary.token_bytes)
        self.special_token_ids = sorted(vocabulary.special_ids)

    def __call__(self, text: str | bytes) -> list[int]:
        """No split of a text: masks of forced text, which alone depend on one, are made here (`_Words.along`)."""
        return []


class _Words:
    """The ordinary tokens by their bytes, sorted."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        pairs = enumerate(vocabulary.token_bytes)
        self._sorted = sorted((data, i) for i, data in pairs if data and i not in vocabulary.special_ids)

    def along(self, forced: bytes) -> tuple[list[int], list[int]]:
        """The tokens that a text beginning with `forced` may start with: those inside it, and those that go beyond."""
        inside: list[int] = []
        for end in range(1, len(forced) + 1):
            found = self._starting(forced[:end])
            inside += [i for data, i in found if len(data) == end]
            if not found:
                return inside, []
        return inside, [i for data, i in self._starting(forced) if len(data) > len(forced)]

    def _starting(self, data: bytes) -> list[tuple[bytes, int]]:
        first = bisect.bisect_left(self._sorted, (data, -1))
        found = itertools.takewhile(lambda pair: pair[0].startswith(data), itertools.islice(self._sorted, first, None))
        return list(found)


@dataclass(frozen=True, slots=True)
class _Source:
    """One grammar over one vocabulary, and the masks that every state of it is cut to, packed."""

    vocabulary: Vocabulary
    words: _Words
    reason: Reason
    ordinary: NDArray[np.uint8]
    starting: NDArray[np.uint8]
    eos: tuple[int, ...]
    serial: int = field(default_factory=lambda: next(_serial))
    numbers: Any = field(default_factory=itertools.count)


class Structured:
    """State of a grammar behind a prefix of tokens; implements `api.ConstraintState`."""

    def __init__(self, source: _Source, matcher: Any, *, first: bool) -> None:
        self._source, self._matcher, self._first = source, matcher, first
        self._children: dict[int, Structured] = {}
        self._mask: TokenMask | None = None
        self.key: Hashable = (source.serial, next(source.numbers))

    def mask(self) -> TokenMask:
        """The tokens that go on with the grammar; an end token where the text is complete."""
        if self._mask is None:
            source = self._source
            allowed = self._going_on() & (source.starting if self._first else source.ordinary)
            self._refuse_error()
            if self.may_end():
                for token in source.eos:
                    allowed[token >> 3] |= np.uint8(1 << (token & 7))
            self._mask = TokenMask(allowed=allowed)
        return self._mask

    def _going_on(self) -> NDArray[np.uint8]:
        """The tokens that the grammar goes on with, packed.

        Where it forces some text, llguidance allows one split of it only, and trusts the tokenizer to have one. All are
        allowed here, for what is forced is the text; and none, where the vocabulary cannot write it.
        """
        source, matcher = self._source, self._matcher
        forced = matcher.compute_ff_bytes()
        if not forced:
            return np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)[: len(source.ordinary)]
        inside, beyond = source.words.along(forced)
        allowed = np.zeros(source.vocabulary.size, dtype=bool)
        allowed[[*inside, *(token for token in beyond if matcher.validate_tokens([token]) == 1)]] = True
        return np.packbits(allowed, bitorder="little")

    def advance(self, token_id: int) -> Structured:
        """The state behind a token, one and the same each time.

        Raises
        ------
        ValueError : when the mask bans the token.
        """
        if token_id in self._source.eos and self.may_end():
            return self
        after = self._children.get(token_id)
        if after is None:
            if not is_allowed(self.mask(), token_id):
                raise ValueError(f"token {token_id} is banned in this state; look at the mask before advancing")
            matcher = self._matcher.deep_copy()
            matcher.consume_token(token_id)
            after = self._children[token_id] = Structured(self._source, matcher, first=False)
            after._refuse_error()
        return after

    def may_end(self, data: bytes = b"") -> bool:
        """Whether the text is complete; not known behind part of a token, so no."""
        return not data and bool(self._matcher.is_accepting())

    def explain(self, token_id: int) -> tuple[Reason, ...]:
        """The one reason, where the token is refused."""
        return () if is_allowed(self.mask(), token_id) else (self._source.reason,)

    def _refuse_error(self) -> None:
        if self._matcher.is_error():
            raise R1Error(f"llguidance gave up on the grammar: {_first_line(self._matcher.get_error())}")


def _start(request: DecodeRequest, grammar: str, spaced: str, reason: Reason) -> Structured:
    """The first state; `spaced` is the grammar behind an optional space, for vocabularies that drop it at the start."""
    assert isinstance(request, Request)
    vocabulary, llguidance = request.vocabulary, _llguidance()
    if "llguidance" not in vocabulary.cache:
        wrapper = llguidance.TokenizerWrapper(_Tokens(vocabulary))
        made = llguidance.LLTokenizer(wrapper, n_vocab=vocabulary.size)
        vocabulary.cache["llguidance"] = (made, _Words(vocabulary))
    tokenizer, words = cast("tuple[Any, _Words]", vocabulary.cache["llguidance"])
    drops = vocabulary.first_bytes is not vocabulary.token_bytes
    matcher = llguidance.LLMatcher(tokenizer, spaced if drops else grammar)
    if matcher.is_error():
        raise UserError(f"{reason.rule}: llguidance refuses it: {_first_line(matcher.get_error())}")
    ordinary = np.ones(vocabulary.size, dtype=bool)
    ordinary[list(vocabulary.never_ids)] = False
    ordinary[list(vocabulary.eos_ids)] = False
    pairs = zip(vocabulary.first_bytes, vocabulary.token_bytes, strict=True)
    starting = ordinary & np.array([first == inside.removeprefix(b" ") for first, inside in pairs])
    inside, at_start = (np.packbits(mask, bitorder="little") for mask in (ordinary, starting if drops else ordinary))
    source = _Source(vocabulary, words, reason, inside, at_start, tuple(vocabulary.eos_ids))
    return Structured(source, matcher, first=True)


def _first_line(message: str) -> str:
    return message.strip().splitlines()[0] if message.strip() else "no reason given"


class JsonSchema:
    """`json-schema`: the answer is one JSON document of this schema.

    Parameters
    ----------
    source : the schema as JSON text.
    where : its file, for messages.

    Raises
    ------
    UserError : for what is no JSON Schema, or where a library is missing.
    """

    name = "json-schema"
    requires = True

    def __init__(self, source: str, where: str = "the JSON Schema") -> None:
        self._where = where
        try:
            plain, exact = json.loads(source), json.loads(source, parse_float=Decimal)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: not JSON: {error}", fix="write a JSON Schema") from error
        if not isinstance(plain, dict):
            raise UserError(f"{where}: expected a JSON object, found {type(plain).__name__}", fix="write a JSON Schema")
        _llguidance()
        self._validator = _validator(plain, exact, where)
        self._schema = {**plain, "x-guidance": _WRITTEN}
        self._reason = Reason(self.name, where, "no document of the schema goes on like this")

    @classmethod
    def read(cls, file: Path) -> JsonSchema:
        """The constraint of a schema file.

        Raises
        ------
        UserError : naming the file, when it cannot be read or is no JSON Schema.
        """
        try:
            return cls(file.read_text(encoding="utf-8"), str(file))
        except (OSError, UnicodeDecodeError) as error:
            said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise UserError(f"{file}: {said.lower()}", fix="give a JSON Schema file") from error

    def start(self, request: DecodeRequest) -> ConstraintState:
        """The schema as a state.

        Raises
        ------
        UserError : for a keyword that llguidance does not implement.
        """
        document = json.dumps(self._schema)
        grammar = _llguidance().LLMatcher.grammar_from_json_schema(document)
        return _start(request, grammar, f"start: /( )?/ document\ndocument: %json {document}", self._reason)

    def recheck(self, example: Example, text: str) -> Sequence[Reason]:
        """What `jsonschema` finds wrong with the text."""
        try:
            document = json.loads(text, parse_float=Decimal, parse_constant=_no_number)
        except ValueError as error:
            return [Reason(self.name, self._where, f"not JSON: {error}")]
        return [Reason(self.name, self._where, error.message) for error in self._validator.iter_errors(document)]

    def fingerprint(self) -> str:
        """Hash of the schema."""
        return hashlib.sha256(json.dumps(self._schema, sort_keys=True).encode()).hexdigest()


def _validator(plain: dict[str, Any], exact: dict[str, Any], where: str) -> Any:
    try:
        from jsonschema import Draft202012Validator, SchemaError
        from jsonschema.validators import validator_for
    except ImportError as error:
        raise UserError("structured answers need jsonschema, which is not installed", fix=_INSTALL) from error
    kind = validator_for(plain, default=Draft202012Validator)
    try:
        kind.check_schema(plain)
    except SchemaError as error:
        at = "/".join(map(str, error.absolute_path)) or "its top"
        raise UserError(f"{where}: no JSON Schema: at {at}: {error.message}", fix="mend the schema") from error
    return kind(exact)


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


class Regex:
    """`regex`: the whole answer matches a regular expression that Rust's and Python's engines both read.

    Raises
    ------
    UserError : for an expression that Python's `re` does not read, or where llguidance is missing.
    """

    name = "regex"
    requires = True

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        _llguidance()
        try:
            self._compiled = re.compile(pattern)
        except re.error as error:
            raise UserError(f"regex {pattern!r}: {error}", fix="mend the expression") from error
        told = f"no match of {pattern!r} goes on like this"
        self._reason = Reason(self.name, "the regular expression asked for", told)

    def start(self, request: DecodeRequest) -> ConstraintState:
        """The expression as a state.

        Raises
        ------
        UserError : for an expression that llguidance does not read (look-around, back-references).
        """
        from_regex = _llguidance().LLMatcher.grammar_from_regex
        return _start(request, from_regex(self._pattern), from_regex(f"( )?(?:{self._pattern})"), self._reason)

    def recheck(self, example: Example, text: str) -> Sequence[Reason]:
        """Whether Python's `re` matches the whole text."""
        matched = self._compiled.fullmatch(text)
        return () if matched else (Reason(self.name, self._reason.citation, f"no match of {self._pattern!r}"),)

    def fingerprint(self) -> str:
        """Hash of the expression."""
        return hashlib.sha256(self._pattern.encode()).hexdigest()
