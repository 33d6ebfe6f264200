"""The server's app: Flower's own FedAvg or FedProx, with a check of what comes, the server's noise, and a record."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, FedProx, Strategy

from r1core.api import Learner, R1Error, UserError
from r1core_flower import wire
from r1core_flower.config import FlowerConfig
from r1core_flower.layout import Layout, Vector
from r1core_flower.mechanism import clipped, norm_of
from r1core_flower.record import Budget, Record

LOOK = 1.0  # seconds between two looks for clients
HANDOVER = 120.0  # seconds that clients have to take the last weights


@dataclass
class Rounds(Strategy):
    """A strategy around Flower's: it looks at every answer before the mean, and keeps what comes of the round.

    `done` : rounds that were finished before this start; Flower counts from 1 each time.
    `possible` : clients that can still come, where that is known.
    """

    inner: FedAvg
    learner: Learner
    config: FlowerConfig
    record: Record
    budget: Budget | None
    tell: Callable[[str], None]
    done: int
    possible: Callable[[], int]

    def __post_init__(self) -> None:
        self._layout = Layout.of(self.learner.weights())
        self._start: Vector = self._layout.vector(self.learner.weights())

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Wait for clients, and send them the round."""
        number = self.done + server_round
        if self.budget is not None:
            self.budget.require_one_more()
        first = server_round == 1
        come = self._awaited(grid, self.config.number if first else self.config.min_clients)
        self.tell(f"round {number} of {self.config.rounds}: {come} clients")
        self._start = arrays[self._layout.key].numpy()
        config["rounds"], config["privacy"] = self.config.rounds, self.config.dp
        return self.inner.configure_train(number, arrays, config, grid)

    def _awaited(self, grid: Grid, wanted: int) -> int:
        """How many clients are there, once `wanted` are, or the time is over and they are enough.

        Raises
        ------
        UserError : when they are fewer than `min_clients`.
        """
        until, told = time.monotonic() + self.config.wait, -1
        while (there := len(list(grid.get_node_ids()))) < min(wanted, self.possible()) and time.monotonic() < until:
            if there != told:
                self.tell(f"  {there} of {wanted} clients are here")
                told = there
            time.sleep(LOOK)
        if there < self.config.min_clients:
            raise UserError(
                f"{there} clients are here, and {self.config.min_clients} are needed",
                fix="see the clients' own logs; started again, the server goes on behind the last finished round",
            )
        return there

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The mean of what fits, with the server's noise where it is asked for; kept before anybody sees it.

        Raises
        ------
        UserError : when fewer answers than `min_clients` fit.
        """
        number, asked = self.done + server_round, list(replies)
        whole = [reply for reply in asked if self._fits(reply)]
        if len(whole) < self.config.min_clients:
            raise UserError(
                f"round {number}: {len(whole)} whole answers, and {self.config.min_clients} are needed",
                fix="see the clients' own logs; started again, the server goes on behind the last finished round",
            )
        clients = [self._seen(reply) for reply in whole]
        if self.budget is not None:
            for reply in whole:
                end = clipped(self._vector(reply), self._start, self.budget.clip)
                reply.content[wire.WEIGHTS] = wire.packed(self._layout, end)
                reply.content[wire.COUNTS] = MetricRecord({wire.ROWS: 1})
        arrays, metrics = self.inner.aggregate_train(number, whole)
        if arrays is None:
            raise R1Error(f"round {number}: Flower made no mean of {len(whole)} answers")
        mean: Vector = arrays[self._layout.key].numpy()
        if self.budget is not None:
            mean = self.budget.spend(mean, self._start, len(whole))
        self._keep(number, mean, clients, len(asked) - len(whole))
        return wire.packed(self._layout, mean), metrics

    def _fits(self, reply: Message) -> bool:
        """Whether an answer holds what a client may send, and nothing else."""
        name = f"client {reply.metadata.src_node_id}"
        if reply.has_error():
            self.tell(f"  {name}: no answer (Flower's code {reply.error.code})")
            return False
        content = reply.content
        if set(content) != {wire.WEIGHTS, wire.COUNTS} or set(content[wire.COUNTS]) != {wire.ROWS}:
            self.tell(f"  {name}: left out, it sent something else than weights and a number of rows")
            return False
        rows, why = content[wire.COUNTS][wire.ROWS], self._layout.unfit(wire.received(content))
        if why is None and (not isinstance(rows, int) or rows < 1):
            why = f"{rows!r} training rows"
        if why is not None:
            self.tell(f"  {name}: left out, {why}")
        return why is None

    def _seen(self, reply: Message) -> dict[str, Any]:
        """What is told of one answer; of one that the server's noise guards, nothing."""
        if self.budget is not None:
            return {}
        return {
            "client": str(reply.metadata.src_node_id),
            "rows": int(reply.content[wire.COUNTS][wire.ROWS]),
            "update_norm": norm_of(self._vector(reply), self._start),
        }

    def _vector(self, reply: Message) -> Vector:
        """The weights of an answer that fits."""
        return reply.content.array_records[wire.WEIGHTS][self._layout.key].numpy()

    def _keep(self, number: int, mean: Vector, clients: list[dict[str, Any]], missing: int) -> None:
        self.learner.load(self._layout.named(mean))
        made: dict[str, Any] = {
            "round": number,
            "answers": len(clients),
            "missing": missing,
            "update_norm": norm_of(mean, self._start),
        }
        if self.budget is None:
            made["clients"] = sorted(clients, key=lambda one: (one["rows"], one["client"]))
        else:
            made |= self.budget.told()
            self.record.privacy = self.budget.card()
        if self.config.validate_rounds:
            made["validation_accuracy"] = self.learner.accuracy("val")
        self.record.add(made)
        self.learner.save(self.record.as_json())
        self.tell(self.record.line(-1))

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Nothing: what a client measures on its rows does not leave it."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Nothing was asked."""
        return None

    def summary(self) -> None:
        """Flower's own."""
        self.inner.summary()


def strategy_of(config: FlowerConfig) -> FedAvg:
    """Flower's strategy, with every client that is there in every round and no evaluation at the clients."""
    few = {"min_train_nodes": config.min_clients, "min_available_nodes": config.min_clients, "fraction_evaluate": 0.0}
    return FedProx(proximal_mu=config.proximal_mu, **few) if config.strategy == "fedprox" else FedAvg(**few)


def server_app(
    learner: Learner,
    config: FlowerConfig,
    record: Record,
    budget: Budget | None,
    tell: Callable[[str], None],
    possible: Callable[[], int],
) -> ServerApp:
    """All rounds that are left, and the handing over of what they came to."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        layout = Layout.of(learner.weights())
        rounds = Rounds(strategy_of(config), learner, config, record, budget, tell, record.done, possible)
        if left := config.rounds - record.done:
            weights = wire.packed(layout, layout.vector(learner.weights()))
            rounds.start(grid, weights, left, timeout=config.round_timeout, train_config=ConfigRecord())
        end, terms = layout.vector(learner.weights()), ConfigRecord({"rounds": config.rounds})
        messages = [wire.handover(layout, end, node, terms) for node in grid.get_node_ids()]
        if messages:
            grid.send_and_receive(messages, timeout=min(HANDOVER, config.round_timeout))

    return app
