"""The two-level taxonomy: groups of event types, one TOML file a group, read and checked.

The file's keys are those of `Group` and `EventType`. `FORM_8K` and `CAEV` hold the codes that a crosswalk may name; a
crosswalk says which item or code such an event is usually filed or sent under, not that it always is.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from r1core.api import JSON, UserError
from r1core_events.values import listed

Direction = Literal["positive", "negative", "mixed", "neutral"]
OWN = Path(__file__).parent / "taxonomy"
SLOTS = ("company", "other", "amount", "date", "percent", "person", "product", "place", "number", "period")
FORM_8K = frozenset(
    listed(
        "1.01 1.02 1.03 1.04 1.05 2.01 2.02 2.03 2.04 2.05 2.06 3.01 3.02 3.03 4.01 4.02 5.01 5.02 5.03 5.04 5.05 5.06 "
        "5.07 5.08 6.01 6.02 6.03 6.04 6.05 7.01 8.01 9.01"
    )
)
CAEV = frozenset(
    listed(
        "ACTV ATTI BIDS BMET BONU BPUT BRUP CAPD CAPG CAPI CERT CHAN CLSA CONS CONV COOP CREV DECR DETI DFLT DLST DRAW "
        "DRCA DRIP DSCL DTCH DVCA DVOP DVSC DVSE EXOF EXRI EXTM EXWA INCR INTR LIQU MCAL MEET MRGR NOOF ODLT OTHR PARI "
        "PCAL PDEF PINK PLAC PPMT PRED PRII PRIO REDM REDO REMK RHDI RHTS SHPR SMAL SOFF SPLF SPLR SUSP TEND TNDP TREC "
        "WRTH WTRC XMET"
    )
)
_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_SLOT = re.compile(r"\{(\w*)\}")
_TEXT = ("id", "title", "definition")
_LISTS = ("sec_8k", "fibo", "iso15022", "triggers", "examples", "train", "dev", "test", "sentences")
_NEEDED = ("triggers", "examples", "train", "dev", "test")


@dataclass(frozen=True, slots=True)
class EventType:
    """One type of event.

    Parameters
    ----------
    id : the full id, `group/type`.
    direction : usual effect on the issuer's equity; a prior and not a prediction.
    triggers : lower-case phrases that rarely stand for anything else.
    train, dev, test : templates with slots for fitting, for calibration and thresholds, and for the final figure.
    sentences : hand-written test sentences without slots.
    """

    id: str
    title: str
    definition: str
    direction: Direction
    sec_8k: tuple[str, ...]
    fibo: tuple[str, ...]
    iso15022: tuple[str, ...]
    triggers: tuple[str, ...]
    examples: tuple[str, ...]
    train: tuple[str, ...]
    dev: tuple[str, ...]
    test: tuple[str, ...]
    sentences: tuple[str, ...]

    @property
    def group(self) -> str:
        """The id of its group."""
        return self.id.split("/", 1)[0]


@dataclass(frozen=True, slots=True)
class Group:
    """A group of types that neighbour each other."""

    id: str
    title: str
    definition: str
    types: tuple[EventType, ...]


@dataclass(frozen=True, slots=True)
class Taxonomy:
    """All groups, in the order of their ids."""

    groups: tuple[Group, ...]

    @property
    def types(self) -> tuple[EventType, ...]:
        """Every type of every group, in order."""
        return tuple(kind for group in self.groups for kind in group.types)

    def find(self, identifier: str) -> EventType:
        """Return a type by its full id, or by its last part where only one type ends so. Raises UserError."""
        found = [t for t in self.types if identifier in (t.id, t.id.split("/", 1)[1])]
        if len(found) == 1:
            return found[0]
        if found:
            raise UserError(f"{identifier!r} names {len(found)} types", fix="write " + " or ".join(t.id for t in found))
        near = [t.id for t in self.types if identifier.rsplit("/", 1)[-1] in t.id][:5]
        hint = f"; did you mean {', '.join(near)}" if near else ""
        raise UserError(f"no event type {identifier!r}{hint}", fix="list them: r1core events list")

    def digest(self) -> str:
        """Hash of what a fitted model reads while tagging: ids and triggers."""
        return _hash((kind.id, *kind.triggers) for kind in self.types)

    def fit_digest(self) -> str:
        """Hash of what fitting reads of the taxonomy besides."""
        return _hash((kind.id, kind.title, *kind.triggers, *kind.examples, *kind.train, "", *kind.dev)
                     for kind in self.types)  # fmt: skip


def _hash(rows: Iterable[tuple[str, ...]]) -> str:
    return hashlib.sha256("\n".join("\t".join(row) for row in rows).encode()).hexdigest()


@cache
def load(*folders: Path) -> Taxonomy:
    """Read the taxonomy that ships, and the groups in further folders.

    Raises
    ------
    UserError : for the first thing that is wrong in a file, named with its type.
    """
    groups: dict[str, Group] = {}
    for folder in (OWN, *folders):
        files = sorted(folder.glob("*.toml"))
        if not files:
            raise UserError(
                f"{folder}: no taxonomy file (*.toml)", fix="name a folder that holds one TOML file a group"
            )
        for file in files:
            group = read_group(file)
            if group.id in groups:
                raise UserError(f"{file}: a group {group.id!r} is there already", fix="give the group an id of its own")
            groups[group.id] = group
    return Taxonomy(tuple(groups[key] for key in sorted(groups)))


def read_group(file: Path) -> Group:
    """Read and check one file. Raises UserError."""
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{file}: cannot be read as TOML: {error}", fix="correct it; docs: plugins/events") from error
    head, kinds = content.get("group"), content.get("type")
    if set(content) != {"group", "type"} or not isinstance(head, Mapping) or not isinstance(kinds, list):
        raise UserError(
            f"{file}: has {sorted(content)}", fix="give one table [group] and a table [[type]] for each type"
        )
    _strings(head, _TEXT, f"{file}: [group]")
    if set(head) != set(_TEXT):
        raise UserError(f"{file}: [group] has {sorted(head)}", fix=f"give {', '.join(_TEXT)}")
    types = tuple(_type(kind, head["id"], file) for kind in kinds)
    for name, values in (("id", [t.id for t in types]), ("title", [t.title for t in types])):
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise UserError(f"{file}: {name} {twice[0]!r} is given twice", fix="let every type have its own")
    return Group(head["id"], head["title"], head["definition"], types)


def _type(found: JSON, group: str, file: Path) -> EventType:
    if not isinstance(found, Mapping):
        raise UserError(f"{file}: a type is {found!r}", fix="write it as a table [[type]]")
    at = f"{file}: type {found.get('id', '?')!r}"
    expected = {one.name for one in fields(EventType)}
    if set(found) - expected or expected - set(found) - {"sentences"}:
        wrong = sorted(set(found) ^ expected)
        raise UserError(
            f"{at}: {', '.join(wrong)} unknown or missing", fix=f"its keys are {', '.join(sorted(expected))}"
        )
    _strings(found, _TEXT, at)
    if found["direction"] not in get_args(Direction):
        raise UserError(f"{at}: direction {found['direction']!r}", fix=f"write one of {', '.join(get_args(Direction))}")
    lists: dict[str, tuple[str, ...]] = {}
    for key in _LISTS:
        values = found.get(key, [])
        if not isinstance(values, list) or not all(isinstance(v, str) and v.strip() for v in values):
            raise UserError(f"{at}: {key} is {values!r}", fix="write a list of strings")
        if key in _NEEDED and not values:
            raise UserError(f"{at}: {key} is empty", fix=f"give at least one of {key}")
        lists[key] = tuple(values)
    _check_lists(lists, at)
    return EventType(f"{group}/{found['id']}", found["title"], found["definition"], found["direction"], **lists)


def _strings(table: Mapping[str, JSON], keys: Iterable[str], at: str) -> None:
    for key in keys:
        if not isinstance(table.get(key), str) or not table[key].strip():
            raise UserError(f"{at}: {key} is {table.get(key)!r}", fix=f"give {key} as text")
    if not _ID.fullmatch(table["id"]):
        raise UserError(f"{at}: id {table['id']!r} is not in kebab case", fix='write it as in "merger-agreement"')


def _check_lists(lists: Mapping[str, tuple[str, ...]], at: str) -> None:
    for key, valid, standard in (("sec_8k", FORM_8K, "an item of Form 8-K"), ("iso15022", CAEV, "a CAEV code")):
        for code in lists[key]:
            if code not in valid:
                raise UserError(f"{at}: {key} {code!r} is not {standard}", fix=f"write {standard}, or []")
    for phrase in lists["triggers"]:
        if phrase != phrase.lower() or "{" in phrase:
            raise UserError(f"{at}: trigger {phrase!r}", fix="write triggers in lower case and without slots")
    seen: dict[str, str] = {}
    for key, text in _texts(lists):
        for slot in _SLOT.findall(text):
            if slot not in SLOTS:
                raise UserError(f"{at}: {key} has the slot {{{slot}}}", fix=f"its slots are {', '.join(SLOTS)}")
        if text in seen:
            raise UserError(f"{at}: {text!r} is in {seen[text]} and in {key}", fix="let splits share no template")
        seen[text] = key


def _texts(lists: Mapping[str, tuple[str, ...]]) -> Iterator[tuple[str, str]]:
    for key in ("examples", "train", "dev", "test", "sentences"):
        yield from ((key, text) for text in lists[key])
