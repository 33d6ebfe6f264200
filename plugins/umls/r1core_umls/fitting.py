"""Trains encoder and ranker together, so that the ranker learns from names that its encoder has not seen.

For each of the parts of the concepts, an encoder trained on all the others ranks the names of that part; from those the
ranker learns. Then the encoder that is kept is trained on all. Needs torch; the result does not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from r1core_umls.encoder import Encoder
from r1core_umls.evidence import Evidence, Witness
from r1core_umls.features import Bags, Texts
from r1core_umls.ranking import Fitted, train_ranker
from r1core_umls.search import Nearest, cells_of, faiss_installed
from r1core_umls.tables import MANY, Tables
from r1core_umls.training import Training, train

PARTS = ((7, 8, 9), (4, 5, 6), (1, 2, 3))  # tenths of the concepts that an encoder of the ranker does not learn from
MOST_TAUGHT, MOST_ASKED = 100_000, 8_000  # names that an encoder and the ranker of a large base learn from
Progress = Callable[[str, int, int], None]


def fit(
    names: Texts,
    owners: Sequence[int] | NDArray[np.int32],
    definitions: Sequence[str],
    parents: Bags | Sequence[Sequence[int]],
    config: Training | None = None,
    progress: Progress | None = None,
    folder: Path | None = None,
) -> Fitted:
    """Train on names and the concept of each (a position in `definitions` and `parents`).

    Parameters
    ----------
    progress : told the stage, the steps done and their total.
    folder : where the tables are written, and mapped from; by default they are held in memory.

    Raises
    ------
    ValueError : too few synonyms to learn from.
    UserError : the base is large and faiss is not installed.
    """
    base = _Base(names, np.asarray(owners, np.int32), definitions, parents, config or Training())
    tell = progress or (lambda stage, done, total: None)
    if len(names) > MANY:
        return _fit_many(base, tell, folder)
    told: list[Evidence] = []
    answers: list[NDArray[np.int32]] = []
    for number, part in enumerate(PARTS, 1):
        encoder = base.encoder(part, tell, f"encoder {number} of the ranker")
        asked = base.asked(part)
        told.append(Witness(base.tables(encoder)).weigh([names[at] for at in asked.tolist()], asked))
        answers.append(base.owners[asked])
    evidence = Evidence(np.concatenate([one.concepts for one in told]), np.concatenate([one.columns for one in told]))
    ranker = train_ranker(evidence, np.concatenate(answers), base.config.seed)
    encoder = base.encoder((), tell, "encoder")
    return Fitted(encoder, ranker, base.tables(encoder, folder))


def _fit_many(base: _Base, tell: Progress, folder: Path | None) -> Fitted:
    """Of a large base, one encoder and one set of tables serve both: names that it has not seen are plenty."""
    faiss_installed()  # rather than after minutes of training
    encoder = base.encoder(PARTS[0], tell, "encoder", MOST_TAUGHT)
    tell("tables", 0, 2)
    tables = base.tables(encoder, folder)
    tell("tables", 1, 2)
    cells = cells_of(tables)
    tell("tables", 2, 2)
    asked = base.asked(PARTS[0])
    asked = asked[:: max(1, -(-len(asked) // MOST_ASKED))]
    evidence = Witness(tables, Nearest(tables, cells)).weigh([base.names[at] for at in asked.tolist()], asked)
    ranker = train_ranker(evidence, base.owners[asked], base.config.seed)
    return Fitted(encoder, ranker, tables, cells)


@dataclass(frozen=True)
class _Base:
    """What is trained on."""

    names: Texts
    owners: NDArray[np.int32]
    definitions: Sequence[str]
    parents: Bags | Sequence[Sequence[int]]
    config: Training

    def encoder(self, unseen: Sequence[int], tell: Progress, stage: str, most: int | None = None) -> Encoder:
        """Train on the names of all concepts but those of some tenths; of more than `most` names, on some concepts'."""
        seen = np.flatnonzero(~np.isin(self._tenths, unseen)[self.owners])
        every = -(-len(seen) // (most or len(seen)))
        seen = seen[self.owners[seen] % every == 0]
        weights = train(
            [self.names[at] for at in seen.tolist()],
            self.owners[seen].tolist(),
            self.config,
            lambda done, total: tell(stage, done, total),
        )
        return Encoder(weights)

    def tables(self, encoder: Encoder, folder: Path | None = None) -> Tables:
        """Lay the base out."""
        return Tables.of(encoder, self.names, self.owners, self.definitions, self.parents, folder)

    def asked(self, part: Sequence[int]) -> NDArray[np.int64]:
        """Names of a part's concepts that another name stays for, without each concept's first, the preferred one."""
        concepts, firsts, counts = np.unique(self.owners, return_index=True, return_counts=True)
        wanted = np.zeros(len(self.definitions), np.bool_)
        wanted[concepts] = (counts > 1) & np.isin(self._tenths[concepts], part)
        asked = wanted[self.owners]
        asked[firsts] = False
        return np.flatnonzero(asked)

    @cached_property
    def _tenths(self) -> NDArray[np.int8]:
        """Into which tenth each concept falls, by a hash of its position: the same on every machine."""
        return np.fromiter(map(_tenth, range(len(self.definitions))), np.int8, len(self.definitions))


def _tenth(owner: int) -> int:
    return int.from_bytes(hashlib.sha256(str(owner).encode()).digest()[:4], "little") % 10
