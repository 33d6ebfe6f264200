"""One token's mask: none where the library takes a recording for a trace, and the library's own wherever it counts."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, masking_utils
from transformers.masking_utils import sdpa_mask, sliding_window_causal_mask_function

from r1core.model import one_token

SIZES = {"batch_size": 2, "kv_length": 6, "q_offset": 3, "kv_offset": 0}
PADDED = torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6], dtype=torch.bool)


@pytest.mark.parametrize("traced", [True, False])
def test_nothing_hides_anything_from_a_token_behind_all(traced: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking_utils, "is_tracing", lambda *_: traced)
    assert one_token.masks(q_length=1, **SIZES) is None


@pytest.mark.parametrize(
    "asked",
    [
        {"q_length": 3},
        {"q_length": 1, "attention_mask": PADDED},
        {"q_length": 1, "mask_function": sliding_window_causal_mask_function(2)},
    ],
)
def test_every_other_mask_is_the_librarys(asked: dict[str, object]) -> None:
    options = {**SIZES, "q_offset": 6 - asked["q_length"], "allow_is_causal_skip": False}  # type: ignore[operator]
    found, right = one_token.masks(**asked, **options), sdpa_mask(**asked, **options)  # type: ignore[arg-type]
    assert found is not None
    assert torch.equal(found, right)
    assert not bool(found.all())


def test_a_model_computes_the_same_so_and_is_put_back() -> None:
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=50, hidden_size=32, intermediate_size=32, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2)  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    ids = torch.randint(1, 50, (2, 9))
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    right = model(ids, attention_mask=mask).logits
    changed = one_token.use(model)
    assert model.config._attn_implementation == one_token.NAME
    assert torch.equal(model(ids, attention_mask=mask).logits, right)
    one_token.leave(changed)
    assert model.config._attn_implementation == "sdpa"
