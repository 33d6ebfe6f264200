"""What a model is made of, read from the headers of its safetensors files and from its `config.json`.

Kept are names and shapes. Which of them are linear layers is told by their form (a matrix called `weight` inside a
block, no norm); experts and their routers are none of these, since transformers stacks them. Buffers that old files
hold, and blocks beyond the configuration's number (heads that predict further tokens), are passed over as loading does.

Not covered: layers whose modules are called or cut otherwise than their stored weights.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from r1core.api import JSON
from r1core.model.headers import tensor_shapes
from r1core.model.roles import plain_name, role_of
from r1core.model.strategy import ties

_BUFFER = re.compile(r"(?:masked_bias|inv_freq|position_ids|num_batches_tracked)$")
_ELSEWHERE = re.compile(r"vision|visual|audio|image", re.IGNORECASE)
_ROUTER = re.compile(r"\.(?:gate|router)$")
_NUMBERED = re.compile(r"^(.*?)\.?(\d+)\.")


@dataclass(frozen=True, slots=True)
class Weight:
    """A stored weight, by its module's name.

    Parameters
    ----------
    block : index of the decoder block; None outside.
    linear : whether it is the matrix of a linear layer in a block, or of the output head.
    share : of it that a token meets: below 1 for experts.
    inputs, outputs : of the matrix (of all matrices of a stack), 0 for a vector.
    """

    name: str
    count: int
    role: str
    block: int | None
    linear: bool = False
    expert: bool = False
    share: float = 1.0
    inputs: int = 0
    outputs: int = 0
    bias: bool = False


@dataclass(frozen=True)
class Shape:
    """A model's weights and the widths that its activations have.

    Parameters
    ----------
    blocks : number of decoder blocks.
    width : of the hidden state.
    heads, queries, keys : attention heads; width of all queries together, and of all keys.
    feed_forward : width inside the feed-forward layer, of the experts that a token meets together.
    vocabulary : rows of the output head.
    tied : the output head is the embedding; then no weight plays the role `output`.
    """

    weights: tuple[Weight, ...]
    blocks: int
    width: int
    heads: int
    queries: int
    keys: int
    feed_forward: int
    vocabulary: int
    tied: bool

    @property
    def parameters(self) -> int:
        """All weights, experts that a token does not meet included."""
        return sum(weight.count for weight in self.weights)

    @cached_property
    def matrices(self) -> tuple[Weight, ...]:
        """The matrices inside the blocks."""
        return tuple(w for w in self.weights if w.block is not None and w.inputs)

    @property
    def head(self) -> int:
        """Weights of the output head, or of the embedding that serves as one."""
        return self.vocabulary * self.width

    @property
    def has_experts(self) -> bool:
        """Whether it is a mixture of experts."""
        return any(weight.expert for weight in self.weights)


def read_shape(directory: Path) -> Shape | None:
    """Read a model directory; None where it has no safetensors files.

    Raises
    ------
    UserError : for a file that is cut short or is no safetensors.
    """
    tensors = tensor_shapes(directory)
    if not tensors:
        return None
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = {}
    return shape_of(tensors, config, tied=ties(directory))


def shape_of(tensors: Sequence[tuple[str, Sequence[int]]], config: Mapping[str, JSON], *, tied: bool) -> Shape:
    """A model from the names and shapes of its weights and its configuration (Hugging Face's keys)."""
    inner = config.get("text_config")
    stated: dict[str, JSON] = {**config, **(inner if isinstance(inner, dict) else {})}
    kept = [(n, tuple(s)) for n, s in tensors if not (_BUFFER.search(n) or (n.endswith("bias") and len(s) > 2))]
    prefix, found = _blocks(kept)
    blocks = _number(stated, "num_hidden_layers", "n_layer", "num_layers", "n_layers") or found
    biases = {plain_name(n): s for n, s in kept if n.endswith("bias")}
    experts = _number(stated, "num_local_experts", "num_experts", "n_routed_experts")
    met = _number(stated, "num_experts_per_tok", "num_experts_per_token", "moe_topk") or experts
    share = met / experts if experts else 1.0
    weights = [one for n, s in kept if (one := _weight(n, s, prefix, blocks, biases, share)) is not None]
    embedding = max((w for w in weights if w.role == "embeddings" and w.inputs), key=lambda w: w.count, default=None)
    heads_stored = [w for w in weights if w.role == "output" and w.inputs]
    if tied and embedding is not None:  # an older file holds the shared matrix twice
        weights = [w for w in weights if w not in heads_stored or w.count != embedding.count]
    last = max(heads_stored, key=lambda w: w.count, default=embedding)
    width = _number(stated, "hidden_size", "n_embd", "d_model") or (last.inputs if last is not None else 0)
    heads = _number(stated, "num_attention_heads", "n_head", "n_heads") or 1
    latent = _number(stated, "qk_nope_head_dim")  # of latent attention, whose keys are unfolded head by head
    size = latent + _number(stated, "qk_rope_head_dim") if latent else _number(stated, "head_dim") or width // heads
    groups = heads if latent else _number(stated, "num_key_value_heads") or heads
    moe = _number(stated, "moe_intermediate_size") or _number(stated, "intermediate_size") if experts else 0
    inside = (
        moe * (met + _number(stated, "n_shared_experts"))
        if experts
        else _number(stated, "intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
    )
    return Shape(
        weights=tuple(weights),
        blocks=blocks,
        width=width,
        heads=heads,
        queries=heads * size,
        keys=groups * size,
        feed_forward=inside or 4 * width,
        vocabulary=last.count // max(1, width) if last is not None else 0,
        tied=tied,
    )


def llama_shape(
    *, vocabulary: int, width: int, feed_forward: int, blocks: int, heads: int, groups: int, tied: bool = True
) -> Shape:
    """A Llama-shaped model that is nowhere stored, for a forecast without files."""
    size = width // heads
    tensors: list[tuple[str, Sequence[int]]] = [("model.embed_tokens.weight", (vocabulary, width))]
    for index in range(blocks):
        at = f"model.layers.{index}"
        tensors += [(f"{at}.self_attn.{n}_proj.weight", (heads * size, width)) for n in "q"]
        tensors += [(f"{at}.self_attn.{n}_proj.weight", (groups * size, width)) for n in "kv"]
        tensors += [(f"{at}.self_attn.o_proj.weight", (width, heads * size))]
        tensors += [(f"{at}.mlp.{n}_proj.weight", (feed_forward, width)) for n in ("gate", "up")]
        tensors += [(f"{at}.mlp.down_proj.weight", (width, feed_forward))]
        tensors += [(f"{at}.{n}_layernorm.weight", (width,)) for n in ("input", "post_attention")]
    tensors.append(("model.norm.weight", (width,)))
    if not tied:
        tensors.append(("lm_head.weight", (vocabulary, width)))
    config: dict[str, JSON] = {"hidden_size": width, "intermediate_size": feed_forward, "num_hidden_layers": blocks}
    config |= {"num_attention_heads": heads, "num_key_value_heads": groups}
    return shape_of(tensors, config, tied=tied)


def _weight(
    stored: str,
    shape: tuple[int, ...],
    prefix: str,
    blocks: int,
    biases: Mapping[str, tuple[int, ...]],
    share: float,
) -> Weight | None:
    """One stored weight; None for one of a block beyond the last."""
    name = plain_name(stored)
    placed = _NUMBERED.match(f"{name}.")
    block = int(placed[2]) if placed is not None and placed[1] == prefix else None
    if block is not None and block >= blocks:
        return None
    role = role_of(stored, blocks)
    count = math.prod(shape)
    if len(shape) < 2 or role == "norms":
        return Weight(name, count, role, block, bias=stored.endswith("bias"))
    expert = "expert" in name and "shared" not in name
    stack = math.prod(shape[:-2])
    outputs, inputs = stack * shape[-2], stack * shape[-1]
    bias = biases.get(name)
    if bias is not None and len(shape) == 2 and bias[-1] != shape[0] and bias[-1] == shape[1]:
        outputs, inputs = inputs, outputs  # GPT-2's, which lie the other way round
    matrix = len(shape) == 2 and stored.endswith(".weight") and not expert and not _ROUTER.search(name)
    linear = matrix and (block is not None or role == "output")
    return Weight(name, count, role, block, linear, expert, share if expert else 1.0, inputs, outputs, bias is not None)


def _blocks(tensors: Sequence[tuple[str, tuple[int, ...]]]) -> tuple[str, int]:
    """What stands before the number of a decoder block, and how many there are."""
    sizes: dict[str, int] = {}
    last: dict[str, int] = {}
    for name, shape in tensors:
        placed = _NUMBERED.match(name)
        if placed is not None and not _ELSEWHERE.search(placed[1]):
            sizes[placed[1]] = sizes.get(placed[1], 0) + math.prod(shape)
            last[placed[1]] = max(last.get(placed[1], 0), int(placed[2]))
    if not sizes:
        return "", 0
    prefix = max(sizes, key=sizes.__getitem__)
    return prefix, last[prefix] + 1


def _number(config: Mapping[str, JSON], *keys: str) -> int:
    """The first of these keys that holds a number; 0 where none does."""
    return next((int(v) for key in keys if isinstance(v := config.get(key), int) and not isinstance(v, bool)), 0)
