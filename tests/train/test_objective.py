"""Label smoothing against its closed form."""

from __future__ import annotations

import torch

from r1core.data.packing import pack_rows
from r1core.data.tokens import Encoded
from r1core.model.scores import WholeLogits
from r1core.train.objective import SupervisedFineTuning


def test_smoothing_mixes_the_target_with_the_mean_over_the_vocabulary() -> None:
    batch = pack_rows([Encoded("a", (5, 6), (7, 2), ()), Encoded("b", (5, 8), (2,), ())], {}, torch.float32)
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    logp = torch.log_softmax(logits, -1)
    for share in (0.0, 0.1):
        each = [-(1 - share) * float(logp[i, t]) - share * float(logp[i].mean()) for i, t in enumerate((7, 2, 2))]
        found = SupervisedFineTuning(share).loss(WholeLogits(logits), batch)
        assert torch.allclose(found, torch.tensor([each[0] + each[1], each[2]]), atol=1e-5)
