"""The client's app: it takes the global weights, trains a round on its own rows, and answers with its weights.

An answer holds the adapter's weights and the number of training rows. When training fails, the server is told that it
failed and no more: an error's own words may quote a record. They stay in the client's log.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from r1core.api import Learner, UserError
from r1core_flower import wire
from r1core_flower.config import FlowerConfig
from r1core_flower.layout import Layout, Vector
from r1core_flower.mechanism import norm_of
from r1core_flower.record import NAME

FAILED = Error(code=0, reason="the client could not train; its own log says why")
Handler = Callable[[Message, Context], Message]


class Client:
    """One client over all rounds. `ended` : whether the last message has come. `heard` : when one came last."""

    def __init__(self, learner: Learner, config: FlowerConfig, tell: Callable[[str], None]) -> None:
        self.learner, self.config, self.tell = learner, config, tell
        found = learner.begin(config.rounds)
        self.rounds: list[dict[str, Any]] = [] if found is None else found["rounds"]
        self.layout = Layout.of(learner.weights())
        self.ended, self.heard = False, time.monotonic()
        self.app = ClientApp()
        self.app.train()(self._guarded(self.train))
        self.app.query("final")(self._guarded(self.final))

    def _guarded(self, handle: Handler) -> Handler:
        """A handler of which nothing but its answer reaches the server."""

        @wraps(handle)
        def guarded(message: Message, context: Context) -> Message:
            self.heard = time.monotonic()
            try:
                return handle(message, context)
            except Exception as error:
                self.tell(f"error: {error}")
                if isinstance(error, UserError) and error.fix:
                    self.tell(f"  fix: {error.fix}")
                return Message(FAILED, reply_to=message)

        return guarded

    def train(self, message: Message, context: Context) -> Message:
        """One round."""
        terms = message.content.config_records[wire.TERMS]
        number = int(terms["server-round"])
        self._agrees(terms)
        start = self._global(message)
        self.learner.fit(number, float(terms.get("proximal-mu", 0.0)))
        end = self.layout.vector(self.learner.weights())
        moved = norm_of(end, start)
        self.rounds.append({"round": number, "rows_told": self.learner.rows, "values_sent": len(end), "norm": moved})
        self.learner.save({"rounds": self.rounds})
        self.tell(f"round {number} of {self.config.rounds}: sent {len(end):,} values, an update of norm {moved:.4g}")
        return wire.answer(message, self.layout, end, self.learner.rows)

    def _global(self, message: Message) -> Vector:
        """Take the server's weights into the model.

        Raises
        ------
        UserError : when they are not of this recipe's names and shapes.
        """
        found = wire.received(message.content)
        if (why := self.layout.unfit(found)) is not None:
            raise UserError(f"the server sent {why}", fix="agree on the base model and [adapter]")
        vector = found[self.layout.key].astype(np.float32)
        self.learner.load(self.layout.named(vector))
        return vector

    def _agrees(self, terms: Any) -> None:
        """Refuse a round of other terms than this client's own recipe.

        Raises
        ------
        UserError : with what differs.
        """
        if terms["rounds"] != self.config.rounds:
            raise UserError(
                f"the server wants {terms['rounds']} rounds, this recipe {self.config.rounds}",
                fix="agree on plugins.flower.rounds",
            )
        if not 1 <= int(terms["server-round"]) <= self.config.rounds:
            raise UserError(f"the server wants round {terms['server-round']}", fix="tell whoever runs it")
        if terms["privacy"] == "client" and not self.learner.private:
            raise UserError("the server counts on the client's own privacy policy", fix='add "dp" to run.plugins')

    def final(self, message: Message, context: Context) -> Message:
        """Take what the rounds came to as this run's own adapter."""
        self._global(message)
        self.learner.finish(NAME, {"side": "client", "rounds": self.rounds})
        self.ended = True
        return Message(RecordDict(), reply_to=message)
