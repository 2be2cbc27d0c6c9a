"""Steps a continuous-batching engine: adds arriving batches, steps, and resolves finished ones.

Imports no engine library: any engine that can add a request and step works. Runs on one thread; other threads send
`EngineBatch` objects.

A step cannot be interrupted, and a full step takes long. Therefore background work shares no step with interactive
work, and is admitted one step at a time: interactive work waits for the current step only. Background work that was
deferred for a second is admitted for one step anyway (ADR 14).
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

MAX_DEFERRAL_SECONDS = 1.0
"""Background work that was deferred for this long is admitted for one step even while interactive work runs."""


class SteppingEngine(Protocol):
    """The part of vLLM's LLMEngine that the loop needs."""

    def add_request(self, request_id: str, prompt: Any, params: Any, *, priority: int) -> Any:
        """Add one prompt."""

    def abort_request(self, request_ids: list[str]) -> None:
        """Remove prompts that were added."""

    def step(self) -> Sequence[Any]:
        """Compute one step. Returns the finished outputs, each with its `request_id`."""


@dataclass(slots=True)
class EngineBatch:
    """One batch in the engine: rendered prompts in, one output per prompt, in order.

    Each input has `prompts` and `params`, as vLLM's processors render them, and `tokens`, the number of them.
    """

    inputs: list[Any]
    priority: int
    outputs: list[Any] = field(init=False)
    unfinished: int = field(init=False)
    done: "Future[list[Any]]" = field(default_factory=Future)

    def __post_init__(self) -> None:
        self.unfinished = len(self.inputs)
        self.outputs = [None] * self.unfinished


@dataclass(frozen=True, slots=True)
class AbortBatch:
    """Asks the loop to drop a batch that was cancelled."""

    work: EngineBatch


Inbox = queue.SimpleQueue[EngineBatch | AbortBatch | None]


class EngineLoop:
    """Runs one engine until None arrives in the inbox. `step_tokens` is the token limit of one step."""

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
        """How many running prompts are interactive."""
        self._background: list[tuple[int, int, EngineBatch, int]] = []
        """A heap of deferred prompts: priority, age, batch, position."""
        self._admitted_at = clock()

    def run(self) -> None:
        """Run until closed. Raises what breaks the engine."""
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
                        self._defer(work)
            self._admit()
            if self._running:
                # Only with running prompts: an engine in its own process would wait for an output that never comes.
                for output in self._engine.step():
                    self._resolve(output)

    def fail_all(self, reason: EngineError) -> None:
        """Fail every waiting batch. Call it after `run` has ended, from any thread."""
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
        """Yield all waiting arrivals; block for one when the engine is idle."""
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

    def _defer(self, work: EngineBatch) -> None:
        if not self._background and not self._running:
            self._admitted_at = self._clock()
        for position in range(len(work.inputs)):
            heapq.heappush(self._background, (work.priority, next(self._ids), work, position))

    def _admit(self) -> None:
        """Admit background work for one step, unless interactive work is in the engine."""
        if not self._background or (self._urgent and self._clock() - self._admitted_at < MAX_DEFERRAL_SECONDS):
            return
        while self._background and self._running_tokens < self._step_tokens:
            *_, work, position = heapq.heappop(self._background)
            self._add(work, position)
        self._admitted_at = self._clock()

    def _add(self, work: EngineBatch, position: int) -> bool:
        """Add a prompt. Returns False when the engine refuses it, which fails its batch."""
        prompt = work.inputs[position]
        request_id = str(next(self._ids))
        try:
            self._engine.add_request(request_id, prompt["prompts"], prompt["params"], priority=work.priority)
        except Exception as error:
            # The engine refuses this prompt only: other batches continue.
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
        """Remove the rest of a batch from the engine; a finished batch stays finished."""
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
        work.unfinished -= 1
        if work.unfinished == 0:
            work.done.set_result(work.outputs)
