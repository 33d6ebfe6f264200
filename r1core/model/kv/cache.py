"""The packed cache that a model, or `model.generate(past_key_values=...)`, takes in place of its own.

It holds on to no model and changes none. Layers that keep something else than keys and values of tokens (a recurrent
state) keep it as the library does; kinds of attention whose cache holds more than these are refused by name.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from transformers import PreTrainedConfig
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionCacheLayerMixin,
)

from r1core.api import UserError
from r1core.model.kv.blocks import Room
from r1core.model.kv.layer import PackedLayer, PackedSlidingLayer
from r1core.model.kv.states import FIRST, NEWEST, PackedStates, nbytes

if TYPE_CHECKING:
    from transformers.cache_utils import DummyLayer

    from r1core.model.adapted import LanguageModel

    Layer = CacheLayerMixin | LinearAttentionCacheLayerMixin | DummyLayer

EMPTY = ("DummyLayer", "LinearAttentionLayer")
"""The library's layers that keep no key and no value, by name: the first came after transformers 5.17."""


class PackedCache(Cache):
    """Keys and values of 4, 5 or 6 bits a number, the first and the newest tokens exact.

    Parameters
    ----------
    bits : 4, 5 or 6.
    config : of the model, which says which layers slide; without it, every layer keeps every token.
    first, newest : tokens that stay exact.

    `states` makes one layer's states, as they were asked for.

    Raises
    ------
    UserError : for other bits, a negative number of tokens, or a model with layers that cannot be packed.
    """

    def __init__(
        self, bits: int = 4, config: PreTrainedConfig | None = None, *, first: int = FIRST, newest: int = NEWEST
    ) -> None:
        self._room = Room()
        self.states = states = partial(PackedStates, bits, first=first, newest=newest, room=self._room)
        states()  # what is wrong is said now, not by the first layer
        if config is None:
            make = partial(PackedLayer, states)
            super().__init__(layer_class_to_replicate=make)  # type: ignore[arg-type]  # it is only called
        else:
            super().__init__(layers=[_packed(layer, states) for layer in DynamicCache(config=config).layers])

    @property
    def working_bytes(self) -> int:
        """Bytes that all layers share to unpack a tile into."""
        return self._room.nbytes

    @property
    def nbytes(self) -> int:
        """Bytes of every storage that is held for keys and values."""
        return nbytes(part for layer in self.layers if isinstance(layer, PackedLayer) for part in layer.tensors())


def _packed(layer: Layer, states: partial[PackedStates]) -> Layer:
    """A packed layer in place of the library's."""
    if type(layer) is DynamicLayer:
        return PackedLayer(states)
    if type(layer) is DynamicSlidingWindowLayer:
        return PackedSlidingLayer(states, layer.sliding_window)
    if type(layer).__name__ in EMPTY:
        return layer
    raise UserError(
        f"a packed key/value cache has no place for what {type(layer).__name__} keeps",
        fix="take the exact cache for this model",
    )


def new_cache(model: LanguageModel, bits: int) -> Cache:
    """An empty cache that keeps every token of packed rows, whose masks say what each sees: exact for 0 bits.

    Raises
    ------
    UserError : for bits that there are not.
    """
    return PackedCache(bits) if bits else DynamicCache()
