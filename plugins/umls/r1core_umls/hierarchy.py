"""The hierarchy of a base as a table, child and parent: what rules that say "and descendants" read.

Vocabularies of the Metathesaurus disagree, so that some concepts are kinds of themselves by a circle of relations. The
reader refuses circles; the pairs that lie on one are left out and counted.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from r1core.api import UserError
from r1core_umls.assembly import concepts_under
from r1core_umls.knowledge import KnowledgeBase


def write_hierarchy(
    base: KnowledgeBase, out: Path, roots: Sequence[str] = (), *, names: bool = False
) -> tuple[int, int]:
    """Write `child<TAB>parent` lines under a heading of comments: source, release, licence, fingerprint.

    Parameters
    ----------
    roots : write these concepts and what lies below them only; () writes all.
    names : preferred names in place of ids; a name that several concepts share is followed by its id in brackets.

    Returns
    -------
    tuple : pairs written, and pairs left out because they lie on a circle.

    Raises
    ------
    UserError : the file cannot be written, or a root is unknown.
    """
    only = concepts_under(base, tuple(roots))
    shared: Counter[str] = Counter(_key(concept.name) for concept in base.concepts) if names else Counter()
    aside, written = out.with_name(f"{out.name}.{os.getpid()}"), 0

    def label(concept_id: str) -> str:
        if not names:
            return concept_id
        name = " ".join(base[concept_id].name.split())
        return name if shared[_key(name)] == 1 else f"{name} ({concept_id})"

    circles = _on_circles(base)
    try:
        with aside.open("w", encoding="utf-8") as file:
            for name, value in (
                ("source", Path(base.report.source).name), ("release", base.release),
                ("licence", base.licence or "none"), ("fingerprint", base.fingerprint()),
            ):  # fmt: skip
                file.write(f"# {name}: {value}\n")
            for child, parent in _pairs(base):
                if (child, parent) not in circles and (only is None or (child in only and parent in only)):
                    file.write(f"{label(child)}\t{label(parent)}\n")
                    written += 1
        aside.replace(out)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise UserError(f"{out}: cannot be written ({error.strerror or error})", fix="name a file elsewhere") from error
    return written, sum(only is None or (child in only and parent in only) for child, parent in circles)


def _key(name: str) -> str:
    return " ".join(name.casefold().split())  # as the reader compares conditions


def _pairs(base: KnowledgeBase) -> Iterator[tuple[str, str]]:
    return ((concept.id, parent) for concept in base.concepts for parent in concept.parents)


def _on_circles(base: KnowledgeBase) -> set[tuple[str, str]]:
    """Return the pairs whose parent lies below their child.

    Concepts that no circle goes through are peeled off first, from the top and from the bottom, so that descendants are
    asked for only where a circle may be.
    """
    rest = set(_pairs(base))
    while rest:
        children, parents = {child for child, _ in rest}, {parent for _, parent in rest}
        kept = {(child, parent) for child, parent in rest if child in parents and parent in children}
        if len(kept) == len(rest):
            break
        rest = kept
    return {(child, parent) for child, parent in rest if child == parent or parent in base.descendants(child)}
