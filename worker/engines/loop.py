"""The stepping of a continuous-batching engine: add what arrives, step, resolve what is done.

Names no library: anything that can add a request and step will do. Lives on one thread; `Work` is how other threads
reach it.
"""

import itertools
import queue
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from worker.engines.base import EngineError, ScoringAborted


class SteppingEngine(Protocol):
    """The part of vLLM's LLMEngine that the loop needs."""

    def add_request(self, request_id: str, prompt: Any, params: Any, *, priority: int) -> Any:
        """Take one prompt in."""

    def abort_request(self, request_ids: list[str]) -> None:
        """Forget prompts that were taken in."""

    def step(self) -> Sequence[Any]:
        """Compute a little; answers the outputs that are done, each with its `request_id`."""


@dataclass(slots=True)
class Work:
    """One batch on its way through the engine: rendered inputs in, one output a prompt back, in order.

    Each input has `prompts` and `params`, as vLLM's processors render them.
    """

    inputs: list[Any]
    priority: int
    outputs: list[Any] = field(init=False)
    left: int = field(init=False)
    done: "Future[list[Any]]" = field(default_factory=Future)

    def __post_init__(self) -> None:
        self.left = len(self.inputs)
        self.outputs = [None] * self.left


@dataclass(frozen=True, slots=True)
class Abort:
    """Nobody wants this batch any more."""

    work: Work


Inbox = queue.SimpleQueue[Work | Abort | None]


class EngineLoop:
    """Runs one engine until a None arrives in the inbox."""

    def __init__(self, engine: SteppingEngine, inbox: Inbox) -> None:
        self._engine = engine
        self._inbox = inbox
        self._ids = itertools.count()
        self._running: dict[str, tuple[Work, int]] = {}

    def run(self) -> None:
        """Raises whatever breaks the engine."""
        while True:
            for arrival in self._arrivals():
                match arrival:
                    case None:
                        return
                    case Abort(work):
                        self._abort(work)
                    case work:
                        self._add(work)
            for output in self._engine.step():
                self._resolve(output)

    def fail_all(self, reason: EngineError) -> None:
        """Tell everybody who still waits why there will be no score. For when `run` has ended; from any thread then."""
        waiting = {id(work): work for work, _ in self._running.values()}
        while not self._inbox.empty():
            if isinstance(work := self._inbox.get(), Work):
                waiting[id(work)] = work
        self._running.clear()
        for work in waiting.values():
            work.done.set_exception(reason)

    def _arrivals(self) -> Iterator[Work | Abort | None]:
        """All that waits; when the engine has nothing to do, at least one."""
        if not self._running:
            yield self._inbox.get()
        while True:
            try:
                yield self._inbox.get_nowait()
            except queue.Empty:
                return

    def _add(self, work: Work) -> None:
        for position, rendered in enumerate(work.inputs):
            request_id = str(next(self._ids))
            try:
                self._engine.add_request(request_id, rendered["prompts"], rendered["params"], priority=work.priority)
            except Exception as error:
                # It refuses this prompt, and works on: nobody else's batch may suffer.
                self._drop(work)
                work.done.set_exception(EngineError(f"the engine refuses this batch: {' '.join(str(error).split())}"))
                return
            self._running[request_id] = (work, position)

    def _abort(self, work: Work) -> None:
        """Free the engine of what is left of a batch; one that is done already stays done."""
        if work.done.done():
            return
        self._drop(work)
        work.done.set_exception(ScoringAborted())

    def _drop(self, work: Work) -> None:
        ids = [request_id for request_id, (owner, _) in self._running.items() if owner is work]
        if ids:
            self._engine.abort_request(ids)
        for request_id in ids:
            del self._running[request_id]

    def _resolve(self, output: Any) -> None:
        work, position = self._running.pop(output.request_id)
        work.outputs[position] = output
        work.left -= 1
        if work.left == 0:
            work.done.set_result(work.outputs)
