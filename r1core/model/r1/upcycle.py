"""A dense model turned into an R1 that says the same: its logits are unchanged, and training takes it from there.

The dense feed-forward part stays as the shared expert; the routed experts are small and new, and what they write is
zero, as is what the layer across groups writes. The source's rotary base, full attention and context stay as they are;
`r1core.model.r1.change` takes those steps, which do change what a model says. (A. Komatsuzaki et al.,
arXiv:2212.05055, copy the dense part into every expert: `copies` does that, without a shared expert.)

Read are models of the families Llama and Mistral with gated feed-forward parts and no biases; others are refused.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from r1core.api import UserError
from r1core.errors import line_of
from r1core.model.r1.config import LONGEST, R1Config
from r1core.model.r1.model import R1ForCausalLM
from r1core.model.upcycling import Upcycling

FAMILIES = ("llama", "mistral")
WEIGHTS = ("*.safetensors", "*.bin", "*.index.json", "config.json", "*.gguf")
"""Files that are not taken over as they are."""


def configuration(dense: PretrainedConfig, how: Upcycling) -> R1Config:
    """The configuration of the R1 that a dense one becomes.

    Raises
    ------
    UserError : for another family, biases, another activation or a window.
    """
    window = getattr(dense, "sliding_window", None)
    found = [
        *([] if dense.model_type in FAMILIES else [f"of the family {dense.model_type!r}"]),
        *(["with biases"] if getattr(dense, "attention_bias", False) or getattr(dense, "mlp_bias", False) else []),
        *([] if getattr(dense, "hidden_act", None) == "silu" else ["without SwiGLU"]),
        *([f"with a sliding window of {window}"] if window else []),
        *([] if dense.max_position_embeddings <= LONGEST else [f"for more than {LONGEST} positions"]),
    ]
    if found:
        raise UserError(
            f"a dense model {', '.join(found)} cannot become an R1",
            fix=f"give one of the families {' and '.join(FAMILIES)} with full attention and without biases",
        )
    kept = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
            "max_position_embeddings", "rope_parameters", "rms_norm_eps", "initializer_range", "tie_word_embeddings",
            "pad_token_id", "bos_token_id", "eos_token_id")  # fmt: skip
    said: dict[str, Any] = {name: getattr(dense, name) for name in kept}
    said["head_dim"] = getattr(dense, "head_dim", None) or dense.hidden_size // dense.num_attention_heads
    wide = dense.intermediate_size
    try:
        return R1Config(
            **said,
            intermediate_size=0 if how.copies else wide,
            moe_intermediate_size=wide if how.copies else how.width,
            num_experts=how.experts,
            expert_groups=how.groups,
            num_experts_per_tok=how.top,
            groups_per_token=min(how.top, how.groups),
            adaptation_rank=how.adaptation_rank,
            sliding_window=None,
        )
    except ValueError as error:
        raise UserError(f"upcycling: {line_of(error, -1)}", fix="give other sizes") from error


@torch.no_grad()
def upcycled(dense: torch.nn.Module, how: Upcycling) -> R1ForCausalLM:
    """The R1 of a loaded dense model, in its dtype."""
    config = configuration(dense.config, how)  # type: ignore[arg-type]
    dtype = next(dense.parameters()).dtype
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(how.seed)
        model = R1ForCausalLM(config)
        model.to(dtype=dtype)  # type: ignore[call-arg]  # transformers' stub takes a model here
    frequencies = dense.get_submodule("model.rotary_emb")  # the cast has rounded ours
    for name, buffer in frequencies.named_buffers():
        setattr(model.model.rotary_emb, name, buffer.clone())
    state = {name: value for name, value in dense.state_dict().items() if ".mlp." not in name}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected, unexpected
    assert all(".mlp." in name for name in missing), missing
    for index, block in enumerate(model.model.layers):
        old = dense.get_submodule(f"model.layers.{index}.mlp")
        if block.mlp.shared is not None:
            block.mlp.shared.load_state_dict(old.state_dict())
            block.mlp.experts.down_proj.zero_()
        else:
            gate, up = old.gate_proj.weight, old.up_proj.weight  # type: ignore[union-attr]
            block.mlp.experts.gate_up_proj.copy_(torch.cat([gate, up]).expand_as(block.mlp.experts.gate_up_proj))  # type: ignore[list-item]
            block.mlp.experts.down_proj.copy_(old.down_proj.weight.expand_as(block.mlp.experts.down_proj))  # type: ignore[union-attr, operator]
    return model.eval()


def upcycle(source: Path, target: Path, how: Upcycling) -> None:
    """Write the R1 of the dense model in `source` into the directory `target`, tokenizer and all.

    Raises
    ------
    UserError : for a directory without a dense model that can become one.
    """
    try:
        configuration(AutoConfig.from_pretrained(source, local_files_only=True), how)
        dense = AutoModelForCausalLM.from_pretrained(source, dtype="auto", local_files_only=True)
    except (OSError, ValueError) as error:
        raise UserError(f"{source}: not a causal language model: {line_of(error)}") from error
    target.mkdir(parents=True, exist_ok=True)
    upcycled(dense, how).save_pretrained(target)
    take_over(source, target)


def take_over(source: Path, target: Path) -> None:
    """Copy what a model's directory holds beside weights and configuration: tokenizer, generation settings, licence."""
    left_out = {file for pattern in WEIGHTS for file in source.glob(pattern)}
    for file in source.iterdir():
        if file.is_file() and file not in left_out:
            shutil.copy2(file, target / file.name)


@torch.no_grad()
def agreement(source: Path, target: Path, length: int = 64) -> float:
    """Greatest difference of a logit between a dense model and its R1, on random tokens, in their dtype."""
    dense = AutoModelForCausalLM.from_pretrained(source, dtype="auto", local_files_only=True).eval()
    made = R1ForCausalLM.from_pretrained(target, dtype="auto", local_files_only=True).eval()
    length = min(length, made.config.max_position_embeddings)
    ids = torch.randint(0, made.config.vocab_size, (1, length), generator=torch.Generator().manual_seed(0))
    return float((dense(ids).logits.float() - made(ids).logits.float()).abs().max())
