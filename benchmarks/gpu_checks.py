"""On a GPU: packed rows do not see one another, their gradients are finite, and recorded passes change rounding only.

Run: python benchmarks/gpu_checks.py, once with `flash-attn-4` installed and once without. A CPU has no such kernels;
the tests hold the same of the masks that it uses.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from record import write
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from r1core.data.packing import Layout, additive, pack_rows
from r1core.data.tokens import Encoded
from r1core.model import flash4, flash_rows
from r1core.model.adapter import adapter_tensors, add_adapter
from r1core.model.layers import ExtraLayers
from r1core.model.load import without_cudnn_attention
from r1core.model.scores import inputs_of
from r1core.recipe.strategy import Strategy
from r1core.recipe.training import Adapter, Train
from r1core.train.loop import Trainer
from r1core.train.objective import objective_of
from r1core.train.order import order_of

LAYOUT = Layout(share=False, flash=True, longest=80, multiple=64, rows=8)
CUDA = torch.device("cuda")


def model(dtype: torch.dtype) -> LlamaForCausalLM:
    """A small random model with grouped heads, on the GPU; the same weights in every dtype."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=500, hidden_size=128, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, attn_implementation="eager",
    )  # fmt: skip
    made = LlamaForCausalLM(config).to(CUDA, dtype).requires_grad_(False).eval()
    return made


def rows(number: int) -> list[Encoded]:
    """Rows of 4 to 70 tokens."""
    rng = np.random.default_rng(0)

    def some(least: int, most: int) -> tuple[int, ...]:
        return tuple(rng.integers(3, 500, rng.integers(least, most)).tolist())

    return [Encoded(str(i), some(3, 40), (*some(1, 30), 2), ()) for i in range(number)]


@torch.no_grad()
def packed_against_alone(data: list[Encoded]) -> tuple[float, bool]:
    """Relative error of packed bf16 logits against fp32 eager row by row; whether a row ignores the others' tokens."""
    exact, packed = model(torch.float32), model(torch.bfloat16)
    flash_rows.use(packed)

    def logits(some: list[Encoded]) -> torch.Tensor:
        batch = pack_rows(some, {}, torch.bfloat16, LAYOUT).to(CUDA)
        return packed(**inputs_of(batch), logits_to_keep=batch.where).logits[0].float()

    alone = [
        exact(input_ids=torch.tensor([r.prompt + r.response[:-1]], device=CUDA)).logits[0, len(r.prompt) - 1 :]
        for r in data
    ]
    wanted, found = torch.cat(alone), logits(data)
    others = [Encoded("x", tuple((t + 1) % 490 + 3 for t in r.prompt), r.response, ()) for r in data[1:]]
    own = len(data[0].response)
    apart = torch.equal(logits([data[0], *others])[:own], found[:own])
    return float((found[: len(wanted)] - wanted).norm() / wanted.norm()), apart


def lengths_without_gradient() -> int:
    """Of 256 lengths of a packed sequence under a mask, those at which attention's gradient is not finite."""
    wrong = 0
    for length in range(65, 321):
        torch.manual_seed(length)
        rows = torch.randint(2, 17, ()).item()
        owner = torch.randint(0, int(rows), (length,)).sort().values
        allowed = (owner[:, None] == owner[None]) & torch.ones(length, length).tril().bool()
        allowed[:, :4] |= torch.ones(length, 4).tril().bool()
        mask = additive(allowed.numpy(), torch.bfloat16).to(CUDA)
        parts = [torch.randn(1, heads, length, 64, device=CUDA, dtype=torch.bfloat16) for heads in (9, 3, 3)]
        query, key, value = (part.requires_grad_() for part in parts)
        out = functional.scaled_dot_product_attention(
            query, key.repeat_interleave(3, 1), value.repeat_interleave(3, 1), attn_mask=mask
        )
        out.backward(torch.randn_like(out))
        wrong += not all(bool(part.grad.isfinite().all()) for part in parts)  # type: ignore[union-attr]
    return wrong


def trained(data: list[Encoded], **how: object) -> tuple[list[float], Mapping[str, torch.Tensor]]:
    """The loss of every step of a short training, and the adapter that it ends with."""
    base = model(torch.bfloat16)
    flash_rows.use(base)
    adapted = add_adapter(base, Adapter(rank=8, alpha=16), 0, strategy=Strategy())
    given = {"batch_size": 16, "steps": 24, "packing": "best_fit", "checkpoint_every": 1000, **how}
    config = Train.model_validate(given)
    told: list[float] = []
    Trainer(
        adapted.model, ExtraLayers(base, [], 0), data, {}, objective_of(config), config,
        order=order_of(config, len(data), 0), seed=0, save=lambda *_: None,
        on_step=lambda step, metrics: told.append(metrics["loss"]),
    ).run()  # fmt: skip
    return told, adapter_tensors(adapted.model)


def main() -> None:
    data = rows(64)
    torch.backends.cuda.enable_cudnn_sdp(True)
    untouched = lengths_without_gradient()
    without_cudnn_attention()
    unsound = lengths_without_gradient()
    error, apart = packed_against_alone(data[:7])
    plain, _ = trained(data, compile="off")
    recorded, first = trained(data, compile="on")
    accumulated, _ = trained(data, compile="on", micro_batch_tokens=300)
    _, second = trained(data, compile="on")
    moved = sum(not torch.equal(first[name], second[name]) for name in first) / len(first)
    differences = [max(abs(a - b) / a for a, b in zip(plain, other, strict=True)) for other in (recorded, accumulated)]
    kernel = "FlashAttention-4" if flash4.usable(CUDA) else "torch's kernel"
    machine = {"machine": f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {kernel}"}
    found = [
        ("packed bf16 logits against fp32 row by row, relative error", error, "<= 0.02", error <= 0.02),
        ("rows that change with another row's tokens", float(not apart), "0", apart),
        ("lengths of 256 whose gradient under a mask is not finite", float(unsound), "0", not unsound),
        ("the same with cuDNN's attention, which is switched off", float(untouched), None, None),
        ("largest relative difference of a loss, recorded passes", differences[0], "<= 1e-3", differences[0] <= 1e-3),
        ("the same, accumulated over micro-batches", differences[1], "<= 1e-3", differences[1] <= 1e-3),
        ("share of trained tensors that have other bits after a second run of 24 steps", moved, None, None),
    ]
    names = ("figure", "value", "target", "met")
    name = "gpu_checks_flash4" if flash4.usable(CUDA) else "gpu_checks"
    write(name, [{**dict(zip(names, one, strict=True)), "unit": "", **machine} for one in found])


if __name__ == "__main__":
    main()
