"""What travels: an adapter's weights as one vector, the number of training rows, and the server's terms of a round."""

from __future__ import annotations

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from r1core_flower.layout import Layout, Vector

WEIGHTS, TERMS, COUNTS = "arrays", "config", "counts"
ROWS = "num-examples"  # as Flower's strategies call the weight of an answer
FINAL = "query.final"


def packed(layout: Layout, vector: Vector) -> ArrayRecord:
    """Weights as Flower carries them."""
    return ArrayRecord({layout.key: Array(vector)})


def received(content: RecordDict) -> dict[str, NDArray[np.generic]]:
    """Whatever arrays came in the place of the weights."""
    return {name: array.numpy() for name, array in content.array_records[WEIGHTS].items()}


def answer(message: Message, layout: Layout, vector: Vector, rows: int) -> Message:
    """A client's answer to a round: all that it sends."""
    content = RecordDict({WEIGHTS: packed(layout, vector), COUNTS: MetricRecord({ROWS: rows})})
    return Message(content, reply_to=message)


def handover(layout: Layout, vector: Vector, node: int, terms: ConfigRecord) -> Message:
    """The last message to a client: what the rounds came to."""
    content = RecordDict({WEIGHTS: packed(layout, vector), TERMS: terms})
    return Message(content, dst_node_id=node, message_type=FINAL)
