"""Metrics for answers without a label set: exact match, token F1 and ROUGE-L, and those that plugins bring.

Exact match and token F1 as in SQuAD: P. Rajpurkar et al., arXiv:1606.05250, section 6 (lower case, no punctuation,
no English articles, single spaces). ROUGE-L: C.-Y. Lin, "ROUGE: A Package for Automatic Evaluation of Summaries",
ACL workshop 2004, section 3, at sentence level with beta = 1.
Not covered: stemming, synonyms, several right answers. Languages without spaces between words count as one token
a run of letters; bring a metric plugin for them.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from r1core.api import Example, Metric, PluginError, UserError
from r1core.evaluate.metrics import Estimate, jackknife

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_WORDS = re.compile(r"\w+")


def normalise(text: str) -> str:
    """Return the text in lower case, without punctuation and English articles, single-spaced."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, reference: str) -> float:
    """Return 1.0 if both texts are equal once normalised, else 0.0."""
    return float(normalise(prediction) == normalise(reference))


def token_f1(prediction: str, reference: str) -> float:
    """Return the F1 of the bags of tokens; two texts without a token agree (1.0), one without does not (0.0)."""
    ours, theirs = normalise(prediction).split(), normalise(reference).split()
    return _f1(sum((Counter(ours) & Counter(theirs)).values()), len(ours), len(theirs))


def rouge_l(prediction: str, reference: str) -> float:
    """Return the F1 of the longest common subsequence of lower-case words (letters, digits, underscore)."""
    ours, theirs = _WORDS.findall(prediction.lower()), _WORDS.findall(reference.lower())
    return _f1(_common_subsequence(ours, theirs), len(ours), len(theirs))


def _f1(shared: int, ours: int, theirs: int) -> float:
    return 2 * shared / (ours + theirs) if ours + theirs else 1.0


def _common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    lengths = [0] * (len(second) + 1)  # of the words of `first` so far, against each prefix of `second`
    for word in first:
        diagonal = 0
        for j, other in enumerate(second, 1):
            above = lengths[j]
            lengths[j] = diagonal + 1 if word == other else max(above, lengths[j - 1])
            diagonal = above
    return lengths[-1]


BUILT_IN: dict[str, Callable[[str, str], float]] = {
    "exact_match": exact_match,
    "token_f1": token_f1,
    "rouge_l": rouge_l,
}
"""Metrics of one row, averaged over rows."""


def named_metrics(found: Sequence[tuple[str, Metric]]) -> dict[str, Metric]:
    """Return plugin metrics by `plugin/name`, from `(plugin, metric)` as hooks return them.

    Raises
    ------
    UserError : for two metrics of one name.
    """
    named: dict[str, Metric] = {}
    for plugin, metric in found:
        name = metric.name if metric.name.startswith(f"{plugin}/") else f"{plugin}/{metric.name}"
        if name in named:
            raise UserError(f"two metrics are called {name!r}", fix=f"rename one in plugin {plugin!r}")
        named[name] = metric
    return named


def plugin_estimate(
    name: str,
    metric: Metric,
    predictions: Sequence[str],
    references: Sequence[str],
    examples: Sequence[Example],
    clusters: Sequence[Hashable] | None = None,
    *,
    seed: int = 0,
) -> Estimate:
    """Return a plugin's figure with a delete-a-group jackknife error: it is called on all rows, then on subsets.

    Raises
    ------
    PluginError : when the metric raises or returns no finite number.
    """

    def statistic(rows: NDArray[np.int64]) -> float:
        plugin = name.partition("/")[0]
        try:
            value = float(
                metric([predictions[i] for i in rows], [references[i] for i in rows], [examples[i] for i in rows])
            )
        except Exception as error:
            raise PluginError(plugin, "metric", f"{name}: {type(error).__name__}: {error}") from error
        if not math.isfinite(value):
            raise PluginError(plugin, "metric", f"{name}: returned {value}, expected a finite number")
        return value

    return jackknife(statistic, clusters, len(predictions), seed=seed)
