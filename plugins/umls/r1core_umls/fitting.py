"""Trains encoder and ranker together, so that the ranker learns from names that its encoder has not seen.

An encoder trained on seven tenths of the concepts ranks the names of the others; from that the ranker learns. Then the
encoder that is kept is trained on all. Needs torch; the result does not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from r1core_umls.encoder import Encoder
from r1core_umls.evidence import Witness
from r1core_umls.ranking import Fitted, train_ranker
from r1core_umls.training import Training, train

SEEN = 7  # tenths of the concepts that the ranker's encoder learns from
RANKING_EPOCHS = 8
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
    config = config or Training(epochs=12)
    tell = progress or (lambda stage, done, total: None)
    seen = [at for at, owner in enumerate(owners) if _tenth(owner) < SEEN]
    first = train(
        [names[at] for at in seen],
        [owners[at] for at in seen],
        replace(config, epochs=min(config.epochs, RANKING_EPOCHS)),
        lambda done, total: tell("encoder of the ranker", done, total),
    )
    asked = _asked(owners)
    evidence = Witness(Encoder(first), names, owners, definitions, parents).weigh([names[at] for at in asked], asked)
    ranker = train_ranker(evidence, [owners[at] for at in asked], config.seed)
    weights = train(names, owners, config, lambda done, total: tell("encoder", done, total))
    return Fitted(Encoder(weights), ranker)


def _tenth(owner: int) -> int:
    return int.from_bytes(hashlib.sha256(str(owner).encode()).digest()[:4], "little") % 10


def _asked(owners: Sequence[int]) -> list[int]:
    """Names of unseen concepts that another name stays for, without each concept's first, the preferred one."""
    firsts: dict[int, int] = {}
    for at, owner in enumerate(owners):
        firsts.setdefault(owner, at)
    counts: NDArray[np.int64] = np.bincount(np.asarray(owners))
    return [
        at for at, owner in enumerate(owners) if _tenth(owner) >= SEEN and counts[owner] > 1 and firsts[owner] != at
    ]
