"""R1: a decoder of sliding-window attention with global nodes, and of experts in domain groups.

Each block's feed-forward part is the sum of a shared expert, of the chosen routed experts, and of the layer that
carries knowledge across groups. A library citizen: `generate`, safetensors, gradient checkpointing and PEFT work as on
transformers' own models; `save_pretrained` writes a directory that r1core loads.

B = batch, T = tokens, N = B T, H = model width, V = vocabulary, E = experts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache, GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import MoeCausalLMOutputWithPast, MoeModelOutputWithPast
from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding

from r1core.api import UserError
from r1core.model.r1.adaptation import R1Mixing
from r1core.model.r1.attention import R1Attention
from r1core.model.r1.cache import furnished, kept_positions, refuse_unlike
from r1core.model.r1.config import R1Config
from r1core.model.r1.experts import IMPLEMENTATION, R1Experts
from r1core.model.r1.feed_forward import R1FeedForward, collecting
from r1core.model.r1.reach import Reach, reach
from r1core.model.r1.routing import R1Router
from r1core.model.r1.temperature import MILLION, Temperature, first_tau, temperature_of


class R1DecoderLayer(GradientCheckpointingLayer):
    """Attention and feed-forward part, each behind its norm and beside the residual."""

    def __init__(self, config: R1Config, layer_idx: int) -> None:
        super().__init__()
        self.self_attn = R1Attention(config, layer_idx)
        self.mlp = R1FeedForward(config)
        self.input_layernorm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(
        self,
        hidden: torch.Tensor,
        rotary: tuple[torch.Tensor, torch.Tensor],
        reach: Reach | None,
        mask: torch.Tensor | None,
        past_key_values: Cache | None,
        valid: torch.Tensor | None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """(B, T, H) -> (B, T, H)."""
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), rotary, reach, mask, past_key_values, **kwargs)
        return hidden + self.mlp(self.post_attention_layernorm(hidden), valid)


class R1PreTrainedModel(PreTrainedModel):
    """What body and causal model share: initial weights, and the expert implementation."""

    config: R1Config
    config_class = R1Config
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["R1DecoderLayer"]  # noqa: RUF012  # the library's attribute
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_attention_backend = True
    _keys_to_ignore_on_load_missing = [r"router\.tau$"]  # noqa: RUF012  # stated in the configuration

    def get_correct_experts_implementation(self, requested_experts: str | None) -> str:
        """`r1core` where nothing else was asked for."""
        return str(super().get_correct_experts_implementation(requested_experts or IMPLEMENTATION))

    @classmethod
    def _can_set_experts_implementation(cls) -> bool:
        """The library looks for its decorator in this file; the experts stand in another."""
        return True

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:  # type: ignore[override]
        """As the library does; the configuration states the temperature that the routers have reached.

        A schedule is stated only where none of its steps has been taken.

        Raises
        ------
        ValueError : when the routers' temperatures differ.
        """
        routers = {name: module for name, module in self.named_modules() if isinstance(module, R1Router)}
        taus = sorted({router.temperature for router in routers.values()})
        if len(taus) > 1:
            raise ValueError(f"routers of temperatures {taus[0]} to {taus[-1]}: a configuration states one for all")
        stated_once = {f"{name}.tau" for name in routers}  # or a configuration that somebody edits would lose
        self._keys_to_ignore_on_save = {*(self._keys_to_ignore_on_save or ()), *stated_once}
        stated = self.config.router_temperature
        if taus and taus[0] != round(first_tau(stated) * MILLION) / MILLION:
            self.config.router_temperature = taus[0]
        try:
            super().save_pretrained(save_directory, **kwargs)
        finally:
            self.config.router_temperature = stated

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, R1Experts):
            init.normal_(module.gate_up_proj, mean=0.0, std=std)
            init.normal_(module.down_proj, mean=0.0, std=std)
        elif isinstance(module, R1Router):
            init.normal_(module.weight, mean=0.0, std=std)
            init.zeros_(module.group_weight)
            init.zeros_(module.bias_steps)
            init.constant_(module.tau, round(first_tau(self.config.router_temperature) * MILLION))
            init.zeros_(module.load)
            init.ones_(module.active)
        elif isinstance(module, R1Mixing):
            init.normal_(module.weight, mean=0.0, std=self.config.expert_groups**-0.5)
        elif isinstance(module, nn.Linear) and hasattr(module, "initial_std"):  # a layer that says so itself
            init.normal_(module.weight, mean=0.0, std=float(module.initial_std))  # type: ignore[arg-type]


class R1Model(R1PreTrainedModel):
    """The body: token ids to hidden states."""

    def __init__(self, config: R1Config) -> None:
        config.refuse()
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.layers = nn.ModuleList([R1DecoderLayer(config, index) for index in range(config.num_hidden_layers)])
        self.norm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary_emb = LlamaRotaryEmbedding(config=config)  # type: ignore[arg-type]  # it reads rope_parameters only
        self.gradient_checkpointing = False
        self.told: torch.Tensor | None = None  # see R1ForCausalLM.reads
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> MoeModelOutputWithPast:
        """Hidden states (B, T, H) of token ids (B, T).

        Raises
        ------
        ValueError : for both or neither of ids and embeddings, a cache of another model, or a context past the limit.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        hidden = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        use_cache = self.config.use_cache if use_cache is None else use_cache
        if use_cache and past_key_values is None and not self.training:
            past_key_values = DynamicCache()
        seen = 0 if past_key_values is None else past_key_values.get_seq_length()
        if seen + hidden.shape[1] > self.config.max_position_embeddings:
            raise ValueError(
                f"{seen + hidden.shape[1]} tokens, and this model has max_position_embeddings ="
                f" {self.config.max_position_embeddings}: shorten the text"
            )
        seeing, mask, position_ids = self._sight(hidden, attention_mask, position_ids, past_key_values)
        rotary = self.rotary_emb(hidden, position_ids=position_ids)
        valid = _valid(attention_mask, hidden) if self.told is None else self.told
        states: tuple[torch.Tensor, ...] = ()
        blocks: list[Any] = [layer.mlp for layer in self.layers]
        with collecting(blocks, self.training):
            for layer in self.layers:
                states = (*states, hidden) if output_hidden_states else ()
                hidden = layer(hidden, rotary, seeing, mask, past_key_values, valid, **kwargs)
        hidden = self.norm(hidden)
        return MoeModelOutputWithPast(
            last_hidden_state=hidden,
            past_key_values=past_key_values,
            hidden_states=(*states, hidden) if output_hidden_states else None,
        )

    def _sight(
        self,
        hidden: torch.Tensor,
        mask: torch.Tensor | None,
        positions: torch.Tensor | None,
        cache: Cache | None,
    ) -> tuple[Reach | None, torch.Tensor | None, torch.Tensor]:
        """Who sees whom, or without a window the library's mask for it; and the positions."""
        if cache is not None:
            windowed = self.config.sliding_window is not None
            cache = furnished(cache, self.config.num_hidden_layers) if windowed else cache
            refuse_unlike(cache, self.config, len(hidden))
        if self.config.sliding_window is None:
            if positions is None:
                start = 0 if cache is None else cache.get_seq_length()
                positions = (torch.arange(hidden.shape[1], device=hidden.device) + start)[None]
            mask = create_causal_mask(  # type: ignore[assignment]  # a BlockMask under flex_attention only
                config=self.config,
                inputs_embeds=hidden,
                attention_mask=mask,
                past_key_values=cache,
                position_ids=positions,
            )
            return None, mask, positions
        seeing, positions = reach(
            positions,
            mask,
            shape=(hidden.shape[0], hidden.shape[1]),
            device=hidden.device,
            kept=kept_positions(cache),
            window=self.config.sliding_window,
            every=self.config.global_every,
        )
        return seeing, None, positions


class R1ForCausalLM(R1PreTrainedModel, GenerationMixin):
    """The body and its output head: token ids to logits."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: R1Config) -> None:
        super().__init__(config)
        self.model = R1Model(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> MoeCausalLMOutputWithPast:
        """Logits (B, T, V) of token ids (B, T); with `labels` the loss too, the routers' in it where it trains."""
        out = self.model(
            input_ids,
            attention_mask,
            position_ids,
            past_key_values,
            inputs_embeds,
            use_cache,
            output_hidden_states,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(out.last_hidden_state[:, kept])
        loss = auxiliary = None
        if labels is not None:
            loss = self.loss_function(logits, labels, self.vocab_size, **kwargs)
            auxiliary = self.batch_loss() if self.training else None
            loss = loss if auxiliary is None else loss + auxiliary
        return MoeCausalLMOutputWithPast(
            loss=loss,
            aux_loss=auxiliary,
            logits=logits,
            past_key_values=out.past_key_values,
            hidden_states=out.hidden_states,
        )

    def reads(self, valid: torch.Tensor) -> None:
        """Say which tokens of the next pass in training are no padding, (B, T), where no attention mask tells."""
        self.model.told = valid

    def batch_loss(self) -> torch.Tensor | None:
        """The routers' loss of the last pass in training, (): its mean over layers. None without such a pass.

        It is of the batch and not of any sample: a trainer adds it, a privacy policy refuses it. Given once for each
        pass, since it holds the pass's graph.

        Raises
        ------
        RuntimeError : where the pass kept no graph for routers that are trained, as under reentrant checkpoints.
        """
        self.model.told = None
        blocks = self.feed_forwards()
        losses = [block.losses for block in blocks if block.losses is not None]
        for block in blocks:
            block.losses = None
        if not losses:
            return None
        lost = torch.is_grad_enabled() and not losses[0].requires_grad
        if lost and any(router.weight.requires_grad for router in self.routers()):
            raise RuntimeError("the routers' losses have no gradient: checkpoint with use_reentrant=False")
        return torch.stack(losses).mean()

    def begin(self) -> None:
        """Set the temperature to the schedule's start, where `config.router_temperature` is a schedule.

        Raises
        ------
        UserError : when a router is not trained: an adapter would not hold its temperature.
        """
        temperature = temperature_of(self.config.router_temperature)
        if not isinstance(temperature, Temperature):
            return
        routers = [router for router in self.routers() if router.weight.requires_grad]
        layers = self.config.num_hidden_layers
        if len(routers) < layers:
            raise UserError(
                f"router_temperature moves from {temperature.start} to {temperature.end}, and"
                f" {layers - len(routers)} of {layers} routers are frozen",
                fix='set strategy.*_feed_forward.mode = "full", or give one temperature',
            )
        for router in routers:
            router.set_temperature(temperature.start)

    def after_step(self, progress: float | None = None) -> None:
        """Move the biases of routers that are trained by the load since the last step, and their temperature.

        A trainer calls it after the optimiser. Where a router is frozen, its bias is: an adapter would not hold it.

        Parameters
        ----------
        progress : share of the training's steps that have been taken, along which the biases' steps fall to 0; None =
            untold, then these are whole, and the temperature stays.
        """
        temperature = temperature_of(self.config.router_temperature)
        for router in self.routers():
            if router.weight.requires_grad:
                router.rebalance(1.0 if progress is None else 1.0 - progress)
                if isinstance(temperature, Temperature) and progress is not None:
                    router.set_temperature(temperature.at(progress))

    @contextmanager
    def balancing(self) -> Iterator[Callable[[float], None]]:
        """Inside, passes only count what the routers that are trained send to whom; what it gives moves their biases.

        For passes behind a training's last step, so that the biases settle on weights that stay as they are. Call the
        function after each with the part of `router_bias_rate` to move by; let it fall, say from 1 to 0 in a line.
        """
        before, trained = self.training, [router for router in self.routers() if router.weight.requires_grad]

        def move(pace: float) -> None:
            if not 0.0 <= pace <= 1.0:
                raise ValueError(f"a pace of {pace}: give 0 to 1")
            self.model.told = None
            for router in trained:
                router.rebalance(pace)

        self.eval()
        for router in trained:
            router.train().load.zero_()
        try:
            yield move
        finally:
            self.train(before)
            for router in trained:
                router.load.zero_()

    def routers(self) -> list[R1Router]:
        """Of every block, in order; beside one that an adapter trains, the base's own."""
        return [module for module in self.modules() if isinstance(module, R1Router)]

    def feed_forwards(self) -> list[R1FeedForward]:
        """Of every block, in order."""
        return [module for module in self.modules() if isinstance(module, R1FeedForward)]


def _valid(mask: torch.Tensor | None, hidden: torch.Tensor) -> torch.Tensor | None:
    """Which of the new tokens are no padding, (B, T); None = all, or untold."""
    return mask[:, -hidden.shape[1] :].bool() if mask is not None and mask.ndim == 2 else None
