"""Trains encoder and ranker together, so that the ranker learns from names that its encoder has not seen.

For each of the parts of the concepts, an encoder trained on all the others ranks the names of that part; from those the
ranker learns. Then the encoder that is kept is trained on all. Needs torch; the result does not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from r1core_umls.encoder import Encoder
from r1core_umls.evidence import Evidence, Witness
from r1core_umls.ranking import Fitted, train_ranker
from r1core_umls.tables import Tables
from r1core_umls.training import Training, train

PARTS = ((7, 8, 9), (4, 5, 6))  # tenths of the concepts that an encoder of the ranker does not learn from
Progress = Callable[[str, int, int], None]


def fit(
    names: Sequence[str],
    owners: Sequence[int],
    definitions: Sequence[str],
    parents: Sequence[Sequence[int]],
    config: Training | None = None,
    progress: Progress | None = None,
) -> Fitted:
    """Train on names and the concept of each (a position in `definitions` and `parents`).

    Parameters
    ----------
    progress : told the stage, the steps done and their total.

    Raises
    ------
    ValueError : too few synonyms to learn from.
    """
    config = config or Training()
    tell = progress or (lambda stage, done, total: None)
    told: list[Evidence] = []
    answers: list[int] = []
    for number, part in enumerate(PARTS, 1):
        seen = [at for at, owner in enumerate(owners) if _tenth(owner) not in part]
        stage = f"encoder {number} of the ranker"
        weights = train(
            [names[at] for at in seen],
            [owners[at] for at in seen],
            config,
            lambda done, total, stage=stage: tell(stage, done, total),  # type: ignore[misc]
        )
        encoder, asked = Encoder(weights), _asked(owners, part)
        witness = Witness(Tables.of(encoder, names, owners, definitions, parents))
        told.append(witness.weigh([names[at] for at in asked], asked))
        answers += [owners[at] for at in asked]
    evidence = Evidence(np.concatenate([one.concepts for one in told]), np.concatenate([one.columns for one in told]))
    ranker = train_ranker(evidence, answers, config.seed)
    encoder = Encoder(train(names, owners, config, lambda done, total: tell("encoder", done, total)))
    return Fitted(encoder, ranker, Tables.of(encoder, names, owners, definitions, parents))


def _tenth(owner: int) -> int:
    return int.from_bytes(hashlib.sha256(str(owner).encode()).digest()[:4], "little") % 10


def _asked(owners: Sequence[int], part: Sequence[int]) -> list[int]:
    """Names of unseen concepts that another name stays for, without each concept's first, the preferred one."""
    firsts: dict[int, int] = {}
    for at, owner in enumerate(owners):
        firsts.setdefault(owner, at)
    counts: NDArray[np.int64] = np.bincount(np.asarray(owners))
    return [
        at for at, owner in enumerate(owners) if _tenth(owner) in part and counts[owner] > 1 and firsts[owner] != at
    ]
