"""A private training on other examples than a run's, as its recipe says; nothing is written to the run.

What an audit of the mechanism trains: the run's model, adapter, objective and passes, on examples that are nobody's.
The loss is that over the whole vocabulary: their answers are no labels. Not covered: preprocessing, extra layers (which
privacy refuses), and checkpoints.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from r1core.api import Example, PrivacyPolicy
from r1core.model.adapter import add_adapter
from r1core.model.layers import ExtraLayers
from r1core.model.probe import Compute
from r1core.train.objective import objective_of
from r1core.train.private import PrivateTrainer, begun
from r1core.train.stage import base_on_device
from r1core.train.start import set_start
from r1core.workbench import Workbench


def rehearse(
    bench: Workbench,
    compute: Compute,
    examples: Sequence[Example],
    policy: PrivacyPolicy,
    tell: Callable[[int, int], None],
) -> None:
    """Train under `policy` to the last step; see `api.Host.rehearse`."""
    recipe = bench.recipe
    model = base_on_device(bench, compute)
    if compute.device == "cpu":
        torch.set_num_threads(compute.threads)
    adapted = add_adapter(
        model, recipe.adapter, recipe.run.seed, strategy=recipe.strategy, fused=not policy.hooks_modules
    )
    set_start(bench, adapted)
    layers = ExtraLayers(model, [], recipe.run.seed)
    rows = [bench.renderer.encode(example) for example in examples]
    with tempfile.TemporaryDirectory() as folder:
        private = begun(policy, recipe, adapted.model, layers, examples, "rehearsal", Path(folder))
        PrivateTrainer(
            adapted.model, layers, rows, bench.chain.kinds, objective_of(recipe.train), recipe.train, private=private,
            seed=recipe.run.seed, save=lambda *state: None, on_step=lambda step, _: tell(step, private.total),
        ).run()  # fmt: skip
