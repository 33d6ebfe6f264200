"""On a GPU: R1's fused ways give what its plain ways give, in a whole model, forward and backward.

Run: python benchmarks/r1_checks.py
The plain ways are a whole mask instead of blocks, and a loop over experts instead of fused kernels, on the same weights
and tokens. A CPU has no such kernels; the tests hold the same of the blocks that they are told.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from record import write

from r1core.model.r1 import R1Config, R1ForCausalLM, attention, flex
from r1core.model.r1.experts import experts_forward

CONFIG = R1Config(
    vocab_size=1000, hidden_size=256, intermediate_size=512, moe_intermediate_size=64, num_hidden_layers=3,
    num_attention_heads=4, num_key_value_heads=2, sliding_window=512, global_every=64, max_position_embeddings=20_000,
)  # fmt: skip
OWN = 3
"""Shapes that get a kernel of their own here, instead of `flex.STATIC`: each takes seconds to compile."""
TOLERANCE = 2e-2
"""Relative error (2-norm) that bf16 explains over three blocks."""


def made() -> R1ForCausalLM:
    """A random model in bf16 on the GPU; what starts at zero is made to count."""
    torch.manual_seed(0)
    model = R1ForCausalLM(CONFIG)
    for name, weight in model.named_parameters():
        if "adaptation.write" in name:
            torch.nn.init.normal_(weight, std=0.02)
    return model.to("cuda", torch.bfloat16)  # type: ignore[arg-type]


@contextmanager
def plainly(model: R1ForCausalLM) -> Iterator[None]:
    """Inside, whole masks and loops."""
    kept, attention.MASKED = attention.MASKED, 1 << 62
    model.set_experts_implementation("eager")
    try:
        yield
    finally:
        attention.MASKED = kept
        model.set_experts_implementation("r1core")


def results(model: R1ForCausalLM, given: dict[str, torch.Tensor], real: torch.Tensor) -> list[torch.Tensor]:
    """Logits of tokens that are no padding, and all gradients of a loss on them."""
    model.zero_grad()
    logits = model(**given, use_cache=False).logits[real].float()
    logits.logsumexp(-1).mean().backward()
    return [logits.detach(), *(weight.grad.float() for weight in model.parameters() if weight.grad is not None)]


def apart(ours: list[torch.Tensor], right: list[torch.Tensor]) -> float:
    """Relative error of everything taken together, gradients weighted alike."""
    pairs = [(a - b).norm() / b.norm().clamp(min=1e-12) for a, b in zip(ours, right, strict=True)]
    return float(torch.stack(pairs).median())


def cases() -> Iterator[tuple[str, dict[str, torch.Tensor], torch.Tensor]]:
    """One long text, padding on the left, packed texts, and lengths beyond those that get a kernel of their own."""
    draw = torch.Generator("cuda").manual_seed(1)
    ids = torch.randint(0, 1000, (2, 5000), generator=draw, device="cuda")
    everything = torch.ones_like(ids, dtype=torch.bool)
    yield "two texts of 5,000 tokens", {"input_ids": ids}, everything
    mask = torch.ones_like(ids)
    mask[0, :777] = 0
    yield "one of them padded on the left", {"input_ids": ids, "attention_mask": mask}, mask.bool()
    places = torch.cat([torch.arange(2100), torch.arange(2900)]).cuda()[None].expand(2, -1)
    yield "packed, 2,100 and 2,900 tokens", {"input_ids": ids, "position_ids": places}, everything
    for length in range(3500, 3500 + 150 * OWN, 150):
        yield f"one text of {length} tokens", {"input_ids": ids[:1, :length]}, everything[:1, :length]


def main() -> None:
    flex.STATIC = OWN
    model, table = made(), []
    for name, given, real in cases():
        ours = results(model, given, real)
        with plainly(model):
            right = results(model, given, real)
        error = apart(ours, right)
        table.append({"figure": f"{name}: fused against plain, median relative error", "value": round(error, 5),
                      "unit": "", "target": TOLERANCE, "met": error <= TOLERANCE, "peer": None})  # fmt: skip
        print(name, error, flush=True)
    table += [experts(model), padded_answers(model.eval())]
    write("r1_checks", [{**row, "machine": torch.cuda.get_device_name()} for row in table])


@torch.no_grad()
def experts(model: R1ForCausalLM) -> dict[str, object]:
    """One to forty tokens, some without an expert here, against the loop in fp32."""
    module = model.feed_forwards()[0].experts
    worst = 0.0
    for tokens in (1, 3, 32, 33, 40):
        hidden = torch.randn(tokens, 256, device="cuda", dtype=torch.bfloat16)
        chosen = torch.rand(tokens, 129, device="cuda").topk(2).indices
        weights = torch.rand(tokens, 2, device="cuda", dtype=torch.bfloat16)
        out = experts_forward(module, hidden, chosen, weights).float()
        right = torch.zeros_like(out)
        for token, (ids, shares) in enumerate(zip(chosen.tolist(), weights.float(), strict=True)):
            for expert, share in zip(ids, shares, strict=True):
                if expert < 128:
                    gate, up = (module.gate_up_proj[expert].float() @ hidden[token].float()).chunk(2)
                    said = module.down_proj[expert].float() @ (torch.nn.functional.silu(gate) * up)
                    right[token] += share * said
        worst = max(worst, float((out - right).norm() / right.norm()))
    figure = "experts of 1 to 40 tokens, some without an expert, against a loop in fp32"
    return {"figure": figure, "value": round(worst, 5), "unit": "", "target": TOLERANCE, "met": worst <= TOLERANCE,
            "peer": None}  # fmt: skip


@torch.no_grad()
def padded_answers(model: R1ForCausalLM) -> dict[str, object]:
    """Share of greedy tokens that are the same with padding and without, over a prompt longer than the window."""
    ids = torch.randint(1, 1000, (2, 4000), device="cuda")  # without 0: `generate` takes what is padding's id for it
    mask = torch.ones_like(ids)
    mask[0, :300] = 0
    how = {"max_new_tokens": 32, "do_sample": False, "pad_token_id": 0}
    both = model.generate(ids, attention_mask=mask, **how)[0, 4000:]  # type: ignore[arg-type]
    alone = model.generate(ids[:1, 300:], **how)[0, 3700:]  # type: ignore[arg-type]
    same = float((both == alone).float().mean())
    figure = "greedy tokens with left padding that are those without (ties may fall otherwise in bf16)"
    return {"figure": figure, "value": same, "unit": "", "target": 0.9, "met": same >= 0.9, "peer": None}


if __name__ == "__main__":
    main()
