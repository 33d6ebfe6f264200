"""`CoreLearner`: what `api.Learner` promises, by the core's own stages: prepare, training in rounds, evaluate."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from r1core.api import JSON, UserError
from r1core.pipeline import BY_ROUNDS, begin, compute_of, run_to, train_fingerprint
from r1core.runs import checkpoints
from r1core.runs.files import directory_replaced, write_json
from r1core.runs.stages import run_stage
from r1core.selection import Selection
from r1core.workbench import Workbench, open_bench

if TYPE_CHECKING:
    import numpy as np

    from r1core.train.rounds import RoundTraining


class _Told:
    """A console of lines alone."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.line = tell

    def progress(self, what: str, done: int, total: int, detail: Mapping[str, float] | None = None) -> None:
        """Say nothing: several learners would speak at once."""


@contextmanager
def opened(selection: Selection, tell: Callable[[str], None]) -> Iterator[CoreLearner]:
    """Prepare a run's records, and hold the run; see `api.Host.learner`."""
    bench = open_bench(selection)
    run_to(bench, "prepare", _Told(tell))
    with bench.run.lock("rounds"):
        begin(bench)
        learner = CoreLearner(bench, tell)
        try:
            yield learner
        finally:
            learner.close()


class CoreLearner:
    """A run whose adapter is trained in rounds; the caller holds the run's lock."""

    def __init__(self, bench: Workbench, tell: Callable[[str], None]) -> None:
        self.bench, self.tell, self.run = bench, tell, bench.run.path
        self.sections: Mapping[str, Mapping[str, JSON]] = bench.recipe.model_dump(mode="json")["plugins"]
        self.private = bench.privacy is not None
        self._training: RoundTraining | None = None
        self._fingerprint = train_fingerprint(bench)
        self._saved = 0

    @property
    def training(self) -> RoundTraining:
        """The model and its rows, once `begin` has loaded them."""
        if self._training is None:
            raise UserError("a learner that has not begun", fix="call begin(rounds) first")
        return self._training

    @property
    def rows(self) -> int:
        """See `api.Learner.rows`."""
        return len(self.training.rows)

    def begin(self, rounds: int) -> JSON:
        """See `api.Learner.begin`."""
        from r1core.train.rounds import RoundTraining

        found = checkpoints.latest_valid(self.bench.run, fingerprint=self._fingerprint.digest)
        state = {} if found is None else found.state()
        if found is None:
            checkpoints.clear(self.bench.run)
        done = int(state.get("training", {}).get("step", 0))
        self.bench.run.metrics.keep(lambda line: int(line.get("step", 0)) <= done)
        self._training = RoundTraining(
            self.bench, compute_of(self.bench), rounds, state.get("training", {}), self._step
        )
        if found is None:
            return None
        self._saved = found.step
        self.training.adapted.load(found.tensors("adapter"))
        return state["record"]

    def weights(self) -> dict[str, np.ndarray]:
        """See `api.Learner.weights`."""
        return self.training.weights()

    def load(self, weights: Mapping[str, np.ndarray]) -> None:
        """See `api.Learner.load`."""
        self.training.load(weights)

    def fit(self, number: int, proximal: float = 0.0) -> None:
        """See `api.Learner.fit`."""
        self.training.fit(number, proximal)

    def accuracy(self, split: str) -> dict[str, float]:
        """See `api.Learner.accuracy`."""
        from r1core.decode.session import Session
        from r1core.evaluate.stage import answers, of_task

        bench, found = self.bench, {}
        examples = bench.measured(bench.run.split(split))
        with tempfile.TemporaryDirectory() as folder:
            self.training.adapted.save(Path(folder))
            session = Session(bench, compute_of(bench), adapted=True, adapter=Path(folder))
            for name, task in bench.tasks.items():
                if task.choices and (rows := of_task(examples, name)):
                    given = answers(session, task, rows, "rounds", lambda *done: None)
                    found[name] = sum(one.constrained == one.gold for one in given) / len(given)
        return found

    def save(self, record: JSON) -> None:
        """See `api.Learner.save`."""
        run, training = self.bench.run, self.training
        self._saved += 1
        state = {"training": training.state(), "record": record}
        tensors = {"adapter": training.adapted.tensors()}
        checkpoints.save(run, self._saved, tensors, state, fingerprint=self._fingerprint.digest)
        checkpoints.prune(run, keep=self.bench.recipe.train.keep_checkpoints)
        self._write_card()

    def finish(self, name: str, record: JSON) -> None:
        """See `api.Learner.finish`."""
        run, training = self.bench.run, self.training

        def body() -> dict[str, JSON]:
            with directory_replaced(run.adapter) as aside:
                training.adapted.save(aside)
            write_json(run.path / name, record)
            self._write_card()
            return {BY_ROUNDS: 1, "trainable_parameters": sum(value.size for value in training.weights().values())}

        outputs = [run.adapter, run.path / name]
        outputs += [run.metrics.path] * run.metrics.path.exists() + [run.privacy_card.parent] * self.private
        run_stage(run, "train", self._fingerprint, outputs, body, tell=self.tell, force=True)

    def close(self) -> None:
        """Let the privacy policy go."""
        if self._training is not None:
            self._training.close()

    def _write_card(self) -> None:
        """What the policy spent so far."""
        if self.training.private is not None:
            card = self.bench.run.privacy_card
            card.parent.mkdir(mode=0o700, exist_ok=True)
            write_json(card, dict(self.training.private.card()))

    def _step(self, step: int, metrics: Mapping[str, float]) -> None:
        self.bench.run.metrics.append({"step": step, **metrics})
        for callback in self.bench.callbacks:
            callback.on_step(step, dict(metrics))
