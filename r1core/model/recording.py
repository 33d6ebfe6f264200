"""Which decoding steps are recorded: the rules, and the block inside of which a model's passes follow them.

Recorded are single tokens of each row through a packed cache, of any model whose passes need nothing of the host, and
through R1's own caches, exact and packed. What is refused is refused by name, and runs as it always does.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast

from r1core.model import one_token
from r1core.model.kv.cache import PackedCache
from r1core.model.kv.fixed import FixedCache
from r1core.model.kv.held import ROWS, WIDTH
from r1core.model.kv.layer import PackedLayer
from r1core.model.recorded import Memory, Outcome, Recorded, Step, graph

if TYPE_CHECKING:
    from r1core.model.adapted import LanguageModel

TOKENS = 1024
"""New tokens that there is room for at first, where nothing else is said; more are recorded anew, over more room."""
WORTH = 16
"""New tokens from which on recording pays: it takes the time of some steps that are not recorded."""
R1 = "r1"
"""`model_type` of our own architecture, whose passes need nothing of the host where its experts are fused kernels."""

_HANDLE = "r1core_recordings"
"""Attribute under which a model has its open recordings."""
_LOCK = threading.Lock()


@contextmanager
def recording(
    model: LanguageModel, cache: Cache, *, tokens: int = TOKENS, record: Callable[[Step], Step] = graph
) -> Iterator[Outcome]:
    """Inside, passes of `model` over one new token a row through `cache` are recorded, and replayed.

    So is `model.generate(past_key_values=cache)`. The first such pass runs as it is, in fixed memory; the second is
    recorded.

    Parameters
    ----------
    cache : a packed one; behind the block it is as if nothing had been recorded.
    tokens : new tokens of each row that are expected.
    record : makes a step that can be replayed of one; another than `graph` stands in for it where no GPU is.
    """
    why: str | None = "there is no GPU"
    if record is not graph or model.device.type == "cuda":
        why = refusal(model, cache) if tokens >= WORTH else f"{tokens} tokens are fewer than recording one costs"
    if why is not None:
        yield Outcome(why)
        return
    with _LOCK:
        taken = vars(model).get(_HANDLE) or _Taken(model)
        steps = Recorded(taken.plain, cache, model.device, memory_for(model, cache, tokens), record)
        taken.steps[id(cache)] = steps
    try:
        yield steps.outcome
    finally:
        with _LOCK:
            del taken.steps[id(cache)]
            taken.leave(model)
        steps.release()


class _Taken:
    """A model's passes, each handed to the recording of its cache; several may be open, in threads of their own.

    `plain` : the model's own `forward`. `steps` : of open recordings, by their cache's identity.
    """

    def __init__(self, model: LanguageModel) -> None:
        self.plain, self._own = model.forward, vars(model).get("forward")
        self._changed = one_token.use(model)
        self.steps: dict[int, Recorded] = {}

        @functools.wraps(self.plain)
        def forward(*args: Any, **given: Any) -> Any:
            cache = given.get("past_key_values")
            steps = self.steps.get(id(cache))
            if steps is None or args or model.training or not steps.asked(given):
                return self.plain(*args, **given)
            logits = steps(given["input_ids"], given.get("position_ids"), given.get("attention_mask"))
            if logits is None:
                return self.plain(**given)
            return CausalLMOutputWithPast(logits=logits, past_key_values=cache)

        model.forward = forward  # type: ignore[method-assign]  # what `model(...)` calls
        vars(model)[_HANDLE] = self

    def leave(self, model: LanguageModel) -> None:
        """Give the model its own `forward` back, where no recording is open any more."""
        if not self.steps:
            one_token.leave(self._changed)
            del vars(model)[_HANDLE], vars(model)["forward"]
            if self._own is not None:
                vars(model)["forward"] = self._own


def fixed_cache(cache: Cache, tokens: int, *, padded: bool) -> FixedCache | None:
    """A packed cache in fixed memory; None where its layers hold too little, or not alike, or a window."""
    kept = [layer.states for layer in cache.layers if type(layer) is PackedLayer]
    sizes = set()
    for states in kept:
        held = states.apart()
        if held is None or held.hidden:
            return None
        count = 0 if held.blocks is None else held.blocks.count
        sizes.add((len(held.newest[0]), held.first[0].shape[2], count, held.newest[0].shape[2], states.most))
    if len(sizes) != 1 or len(kept) != len(cache.layers):
        return None
    return FixedCache(kept, tokens, padded=padded)


def memory_for(
    model: LanguageModel, cache: Cache, tokens: int = TOKENS
) -> Callable[[torch.Tensor | None], Memory | None]:
    """What moves this model's cache to fixed memory, for `Recorded`, once it holds enough."""
    config = model.config.get_text_config()

    def packed(mask: torch.Tensor | None) -> Memory | None:
        return fixed_cache(cache, tokens, padded=mask is not None)

    def of_r1(mask: torch.Tensor | None) -> Memory | None:
        from r1core.model.r1.fixed import fixed_r1  # not needed for other models

        memory = fixed_r1(
            cache.layers, config.sliding_window, config.global_every, config.max_position_embeddings, tokens
        )
        return memory if memory is None or memory.takes(mask) else None

    return of_r1 if _windowed_r1(config) else packed


def _windowed_r1(config: Any) -> bool:
    return config.model_type == R1 and config.sliding_window is not None


def refusal(model: LanguageModel, cache: Cache) -> str | None:
    """Why no step of this model through this cache can be recorded, in a line; None where it can."""
    config = model.config.get_text_config()
    if _windowed_r1(config):
        if type(cache) is not PackedCache and type(cache).__name__ != "DynamicCache":
            return f"R1 does not keep its keys in a {type(cache).__name__}"
    elif type(cache) is not PackedCache:
        return f"a {type(cache).__name__} does not keep its states in one place"
    else:
        kinds = {type(layer).__name__ for layer in cache.layers} - {PackedLayer.__name__}
        if kinds:
            return f"the cache has layers of another kind: {', '.join(sorted(kinds))}"
    if getattr(config, "_attn_implementation", None) not in (one_token.SDPA, one_token.NAME):
        return "attention is not scaled_dot_product_attention"
    if config.model_type != R1 and not getattr(model, "_can_compile_fullgraph", False):
        return f"{type(model).__name__} does not say that a pass needs nothing of the host"
    heads = config.num_attention_heads
    shared = heads // (getattr(config, "num_key_value_heads", None) or heads)
    if shared > ROWS or (getattr(config, "head_dim", None) or config.hidden_size // heads) > WIDTH:
        return "heads are wider, or more of them share keys, than a kernel answers"
    if len({parameter.device for parameter in model.parameters()}) != 1:
        return "it stands on several devices"
    if any(m._forward_hooks or m._forward_pre_hooks or hasattr(m, "_hf_hook") for m in model.modules()):
        return "layers with hooks are computed by the host"
    return None
