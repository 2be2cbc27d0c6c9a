"""The stepping of a continuous-batching engine: add what arrives, step, resolve what is done.

Names no library: anything that can add a request and step will do. Lives on one thread; `EngineBatch` is how other threads
reach it.

A step cannot be interrupted, and one that is filled up takes long. So background work never rides along with work that
somebody waits for, and stands in the engine with no more than one step can take: what is urgent waits for the step in
progress and for nothing else. Background work that was kept out for a second gets a step all the same.
"""

import heapq
import itertools
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from worker.engines.base import BACKGROUND, EngineError, ScoringAborted

KEPT_OUT_SECONDS = 1.0


class SteppingEngine(Protocol):
    """The part of vLLM's LLMEngine that the loop needs."""

    def add_request(self, request_id: str, prompt: Any, params: Any, *, priority: int) -> Any:
        """Take one prompt in."""

    def abort_request(self, request_ids: list[str]) -> None:
        """Forget prompts that were taken in."""

    def step(self) -> Sequence[Any]:
        """Compute a little; answers the outputs that are done, each with its `request_id`."""


@dataclass(slots=True)
class EngineBatch:
    """One batch on its way through the engine: rendered inputs in, one output a prompt back, in order.

    Each input has `prompts` and `params`, as vLLM's processors render them, and `tokens`, the number of them.
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
class AbortBatch:
    """Nobody wants this batch any more."""

    work: EngineBatch


Inbox = queue.SimpleQueue[EngineBatch | AbortBatch | None]


class EngineLoop:
    """Runs one engine until a None arrives in the inbox. `step_tokens` is what one step of it takes."""

    def __init__(
        self,
        engine: SteppingEngine,
        inbox: Inbox,
        step_tokens: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._inbox = inbox
        self._step_tokens = step_tokens
        self._clock = clock
        self._ids = itertools.count()
        self._running: dict[str, tuple[EngineBatch, int]] = {}
        self._running_tokens = 0
        self._urgent = 0
        """So many of the running prompts are somebody's who waits."""
        self._background: list[tuple[int, int, EngineBatch, int]] = []
        """A heap of what is kept out: priority, age, batch, position."""
        self._let_in_at = clock()

    def run(self) -> None:
        """Raises whatever breaks the engine."""
        while True:
            for arrival in self._arrivals():
                match arrival:
                    case None:
                        return
                    case AbortBatch(work):
                        self._abort(work)
                    case work if work.priority < BACKGROUND:
                        self._add_all(work)
                    case work:
                        self._keep_out(work)
            self._let_in()
            if self._running:
                # Not for nothing: an engine in a process of its own would wait for an output that never comes.
                for output in self._engine.step():
                    self._resolve(output)

    def fail_all(self, reason: EngineError) -> None:
        """Tell everybody who still waits why there will be no score. For when `run` has ended; from any thread then."""
        waiting = {id(work): work for work, _ in self._running.values()}
        waiting |= {id(work): work for _, _, work, _ in self._background}
        while not self._inbox.empty():
            if isinstance(work := self._inbox.get(), EngineBatch):
                waiting[id(work)] = work
        self._running.clear()
        self._background.clear()
        for work in waiting.values():
            work.done.set_exception(reason)

    def _arrivals(self) -> Iterator[EngineBatch | AbortBatch | None]:
        """All that waits; when the engine has nothing to do, at least one."""
        if not self._running and not self._background:
            yield self._inbox.get()
        while True:
            try:
                yield self._inbox.get_nowait()
            except queue.Empty:
                return

    def _add_all(self, work: EngineBatch) -> None:
        for position in range(len(work.inputs)):
            if not self._add(work, position):
                return

    def _keep_out(self, work: EngineBatch) -> None:
        if not self._background and not self._running:
            self._let_in_at = self._clock()
        for position in range(len(work.inputs)):
            heapq.heappush(self._background, (work.priority, next(self._ids), work, position))

    def _let_in(self) -> None:
        """A step's worth of background work, unless something urgent is in the engine."""
        if not self._background or (self._urgent and self._clock() - self._let_in_at < KEPT_OUT_SECONDS):
            return
        while self._background and self._running_tokens < self._step_tokens:
            *_, work, position = heapq.heappop(self._background)
            self._add(work, position)
        self._let_in_at = self._clock()

    def _add(self, work: EngineBatch, position: int) -> bool:
        """False when the engine refuses the prompt, and so its batch."""
        given = work.inputs[position]
        request_id = str(next(self._ids))
        try:
            self._engine.add_request(request_id, given["prompts"], given["params"], priority=work.priority)
        except Exception as error:
            # It refuses this prompt, and works on: nobody else's batch may suffer.
            self._drop(work)
            work.done.set_exception(EngineError(f"the engine refuses this batch: {' '.join(str(error).split())}"))
            return False
        self._running[request_id] = (work, position)
        self._count(work, position, 1)
        return True

    def _count(self, work: EngineBatch, position: int, sign: int) -> None:
        self._running_tokens += sign * work.inputs[position]["tokens"]
        if work.priority < BACKGROUND:
            self._urgent += sign

    def _abort(self, work: EngineBatch) -> None:
        """Free the engine of what is left of a batch; one that is done already stays done."""
        if work.done.done():
            return
        self._drop(work)
        work.done.set_exception(ScoringAborted())

    def _drop(self, work: EngineBatch) -> None:
        ids = [request_id for request_id, (owner, _) in self._running.items() if owner is work]
        if ids:
            self._engine.abort_request(ids)
        for request_id in ids:
            self._count(*self._running.pop(request_id), -1)
        if any(entry[2] is work for entry in self._background):
            self._background = [entry for entry in self._background if entry[2] is not work]
            heapq.heapify(self._background)

    def _resolve(self, output: Any) -> None:
        work, position = self._running.pop(output.request_id)
        self._count(work, position, -1)
        work.outputs[position] = output
        work.left -= 1
        if work.left == 0:
            work.done.set_result(work.outputs)
