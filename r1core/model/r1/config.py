"""The configuration of R1: sizes, experts in domain groups, routing, and how far attention reaches.

Every inconsistency is refused here, when a configuration is made, and not in a kernel. Parallel plans name how
transformers cuts a model over GPUs: expert parallel by `base_model_ep_plan`, tensor parallel by `base_model_tp_plan`.

R1 has nothing to do with the released DeepSeek-R1: that is another architecture, and its weights do not load into this.
"""

# Annotations are not postponed here: `strict` checks values against them, and sees nothing in a string.

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from r1core.model.r1.temperature import temperature_of

LONGEST = 204_800
"""Positions that the architecture is made for."""
TENSOR_PARALLEL = {
    "layers.*.self_attn.q_proj": "colwise",
    "layers.*.self_attn.k_proj": "colwise",
    "layers.*.self_attn.v_proj": "colwise",
    "layers.*.self_attn.o_proj": "rowwise",
    "layers.*.mlp.shared.gate_proj": "colwise",
    "layers.*.mlp.shared.up_proj": "colwise",
    "layers.*.mlp.shared.down_proj": "rowwise",
    "layers.*.mlp.experts.gate_up_proj": "packed_colwise",
    "layers.*.mlp.experts.down_proj": "rowwise",
    "layers.*.mlp.experts": "moe_tp_experts",
}
EXPERT_PARALLEL = {
    "layers.*.mlp.experts.gate_up_proj": "grouped_gemm",
    "layers.*.mlp.experts.down_proj": "grouped_gemm",
    "layers.*.mlp.experts": "ep_dispatch_experts",
}


@strict
class R1Config(PreTrainedConfig):
    """Sizes and switches of an R1.

    Parameters
    ----------
    intermediate_size : width of the shared expert, which sees every token; 0 = there is none.
    moe_intermediate_size : width of each routed expert.
    num_experts, expert_groups : routed experts of a layer, and the domain groups that they divide into.
    num_experts_per_tok : experts that a token goes to (top-k).
    groups_per_token : groups that these may come from, the best first.
    router_temperature : tau; the routing probabilities are the softmax of the router's logits over tau. Or how a
        training moves it, `{"start", "end", "shape", "share"}` (see `r1core.model.r1.temperature`); what is saved
        after a step states the tau that was reached.
    norm_topk_prob : whether the chosen experts' weights are scaled to a sum of 1.
    router_aux_loss_coef, router_z_loss_coef : weights of the balance loss and of the z-loss in the training loss.
    router_bias_rate : how far a step moves the selection bias, in logits before tau: up for an expert that got no
        token, down for one that got twice the mean, in between by how far it is off. Falls to 0 along a training.
    adaptation_rank : width a group has in the layer that carries knowledge across groups; 0 = no such layer.
    sliding_window : tokens that a token sees behind itself, itself included; None = all of them.
    global_every : beyond the window it sees the last token of each block of so many; None = nothing.

    Raises
    ------
    ValueError : for sizes that do not fit together, with what was found and what would fit.
    """

    model_type = "r1"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]
    base_model_tp_plan: ClassVar[dict[str, Any]] = TENSOR_PARALLEL
    base_model_ep_plan: ClassVar[dict[str, Any]] = EXPERT_PARALLEL

    mlp_bias: ClassVar[bool] = False  # as the library's dense feed-forward part asks

    vocab_size: int = 49_152
    hidden_size: int = 1024
    intermediate_size: int = 2816
    moe_intermediate_size: int = 512
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    num_key_value_heads: int = 4
    head_dim: int | None = None
    hidden_act: str = "silu"
    num_experts: int = 128
    expert_groups: int = 8
    num_experts_per_tok: int = 2
    groups_per_token: int = 2
    router_temperature: float | int | dict[str, Any] = 0.5
    norm_topk_prob: bool = True
    router_aux_loss_coef: float | int = 0.01
    router_z_loss_coef: float | int = 0.001
    router_bias_rate: float | int = 0.02
    adaptation_rank: int = 16
    sliding_window: int | None = 4096
    global_every: int | None = 256
    max_position_embeddings: int = LONGEST
    rope_parameters: dict[str, Any] | None = None
    rms_norm_eps: float | int = 1e-5
    initializer_range: float | int = 0.02
    attention_bias: bool = False
    attention_dropout: float | int = 0.0
    tie_word_embeddings: bool = False
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        self.rope_parameters = {"rope_type": "default", "rope_theta": 50_000.0, **(self.rope_parameters or {})}
        if self.head_dim is None and self.num_attention_heads > 0:
            self.head_dim = self.hidden_size // self.num_attention_heads
        self.refuse()
        super().__post_init__(**kwargs)

    def refuse(self) -> None:
        """Raise for what does not fit together; a model asks once more, since values can be set one by one.

        Raises
        ------
        ValueError : with what was found and what would fit.
        """
        self._refuse_sizes()
        self._refuse_numbers()
        self._refuse_routing()
        self._refuse_reach()

    @property
    def experts_per_group(self) -> int:
        """Experts of one group."""
        return self.num_experts // self.expert_groups

    @property
    def rope_theta(self) -> float:
        """Base of the rotary position embedding."""
        parameters: Mapping[str, Any] = self.rope_parameters or {}
        return float(parameters["rope_theta"])

    def _refuse_sizes(self) -> None:
        for name in ("vocab_size", "hidden_size", "moe_intermediate_size", "num_attention_heads", "num_key_value_heads",
                     "num_experts", "expert_groups", "max_position_embeddings"):  # fmt: skip
            _at_least(name, getattr(self, name), 1)
        for name in ("intermediate_size", "adaptation_rank", "num_hidden_layers"):
            _at_least(name, getattr(self, name), 0)
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads = {self.num_attention_heads} is no multiple of"
                f" num_key_value_heads = {self.num_key_value_heads}"
            )
        if not self.head_dim or self.head_dim < 0 or self.head_dim % 2:
            raise ValueError(f"head_dim = {self.head_dim}: rotary embeddings turn pairs, so it has to be even")

    def _refuse_numbers(self) -> None:
        for name in ("rms_norm_eps", "initializer_range"):
            if not 0.0 < (value := getattr(self, name)) < math.inf:
                raise ValueError(f"{name} = {value}: give a number above 0")
        for name in ("router_aux_loss_coef", "router_z_loss_coef", "router_bias_rate"):
            if not 0.0 <= (value := getattr(self, name)) < math.inf:
                raise ValueError(f"{name} = {value}: give 0 or more")
        if not 0.0 <= self.attention_dropout < 1.0:
            raise ValueError(f"attention_dropout = {self.attention_dropout}: give a share, from 0 and below 1")
        if self.hidden_act != "silu":
            raise ValueError(f"hidden_act = {self.hidden_act!r}: R1's experts compute silu")
        if not 1.0 < self.rope_theta < math.inf:
            raise ValueError(f"rope_theta = {self.rope_theta}: give a base above 1, R1's is 50000")
        if self.pad_token_id is not None and not 0 <= self.pad_token_id < self.vocab_size:
            raise ValueError(f"pad_token_id = {self.pad_token_id} of a vocabulary of {self.vocab_size}")

    def _refuse_routing(self) -> None:
        experts, top, groups = self.num_experts, self.num_experts_per_tok, self.groups_per_token
        if experts % self.expert_groups:
            raise ValueError(f"num_experts = {experts} do not divide into expert_groups = {self.expert_groups}")
        if not 1 <= top <= experts:
            raise ValueError(f"num_experts_per_tok = {top} of {experts} experts: give 1 to {experts}")
        if not 1 <= groups <= self.expert_groups:
            raise ValueError(
                f"groups_per_token = {groups} of {self.expert_groups} groups: give 1 to {self.expert_groups}"
            )
        if top > groups * self.experts_per_group:
            raise ValueError(
                f"num_experts_per_tok = {top}, but {groups} groups of {self.experts_per_group} hold"
                f" {groups * self.experts_per_group}: raise groups_per_token"
            )
        temperature_of(self.router_temperature)

    def _refuse_reach(self) -> None:
        window, every = self.sliding_window, self.global_every
        if window is not None and window < 1:
            raise ValueError(f"sliding_window = {window}: a token sees at least itself (None = everything)")
        if every is not None and every < 1:
            raise ValueError(f"global_every = {every}: give the length of a block in tokens, or None")
        if self.max_position_embeddings > LONGEST:
            raise ValueError(f"max_position_embeddings = {self.max_position_embeddings}: R1 goes to {LONGEST}")


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} = {value}: give at least {least}")
