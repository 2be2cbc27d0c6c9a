"""Steps a continuous-batching engine: adds arriving batches, steps, and resolves finished ones.

Imports no engine library: any engine that can add a request and step works. Runs on one thread; other threads send
`EngineBatch` objects.

A step cannot be interrupted, and a full step takes long. Therefore background work shares no step with interactive
work, and is admitted one step at a time: interactive work waits for the current step only. Background work that was
deferred for a second is admitted for one step anyway (ADR 14). Its steps are large while only background work waits,
and smaller while interactive calls arrive.

A step that runs out of memory is repeated with half of the prompts, and so on. A prompt that does not fit alone fails
its batch; the others continue.
"""

import heapq
import itertools
import logging
import queue
import time
from collections.abc import Callable, Iterator
from typing import Any

from worker.engines.base import BACKGROUND, EngineError, EngineStep, ScoringAborted, TransientEngineError
from worker.engines.vllm.batches import AbortBatch, EngineBatch, Inbox, Prompt, SteppingEngine
from worker.engines.vllm.memory import MemoryLimit, is_out_of_memory
from worker.engines.vllm.step_sizes import StepSize

logger = logging.getLogger(__name__)

MAX_DEFERRAL_SECONDS = 1.0
"""Background work that was deferred for this long is admitted for one step even while interactive work runs."""
SMALL_STEP_SECONDS = 1.0
"""Background steps stay small for this long after an interactive call arrived: the next one often follows soon."""


class EngineLoop:
    """Runs one engine until None arrives in the inbox."""

    def __init__(
        self,
        engine: SteppingEngine,
        inbox: Inbox,
        step: StepSize,
        *,
        free_memory: Callable[[], None] = lambda: None,
        on_step: Callable[[EngineStep], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`free_memory` is called after a step ran out of memory, when no prompt is in the engine.

        What it raises breaks the engine. `on_step` is called after each step.
        """
        self._engine = engine
        self._inbox = inbox
        self._step = step
        self._free_memory = free_memory
        self._on_step = on_step
        self._clock = clock
        self._ids = itertools.count()
        self._running: dict[str, Prompt] = {}
        self._urgent_tokens = 0
        self._background_tokens = 0
        """The tokens of running prompts: interactive ones and others."""
        self._deferred: list[Prompt] = []
        """A heap of prompts that wait for a step."""
        self._memory = MemoryLimit(step.tokens)
        self._admitted_at = clock()
        self._urgent_at = float("-inf")

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
                        self._urgent_at = self._clock()
                        if self._memory.active:
                            self._defer(work)
                        else:
                            self._add_all(work)
                    case work:
                        self._defer(work)
            self._admit()
            if self._running:
                # Only with running prompts: an engine in its own process would wait for an output that never comes.
                self._compute()

    def fail_all(self, reason: EngineError) -> None:
        """Fail every waiting batch. Call it after `run` has ended, from any thread."""
        waiting = {id(prompt.work): prompt.work for prompt in (*self._running.values(), *self._deferred)}
        while not self._inbox.empty():
            if isinstance(work := self._inbox.get(), EngineBatch):
                waiting[id(work)] = work
        self._running.clear()
        self._deferred.clear()
        for work in waiting.values():
            work.done.set_exception(reason)

    def _arrivals(self) -> Iterator[EngineBatch | AbortBatch | None]:
        """Yield all waiting arrivals; block for one when the engine is idle."""
        if not self._running and not self._deferred:
            yield self._inbox.get()
        while True:
            try:
                yield self._inbox.get_nowait()
            except queue.Empty:
                return

    def _add_all(self, work: EngineBatch) -> None:
        for prompt in self._prompts(work):
            if not self._add(prompt):
                return

    def _defer(self, work: EngineBatch) -> None:
        if not self._deferred and not self._running:
            self._admitted_at = self._clock()
        for prompt in self._prompts(work):
            heapq.heappush(self._deferred, prompt)

    def _prompts(self, work: EngineBatch) -> Iterator[Prompt]:
        for position in range(len(work.inputs)):
            yield Prompt(work.priority, next(self._ids), work, position)

    def _admit(self) -> None:
        """Admit deferred work for one step."""
        if not self._deferred:
            return
        now = self._clock()
        room = self._background_room(now)
        if room:
            self._admitted_at = now
        while self._deferred:
            prompt = self._deferred[0]
            running = self._urgent_tokens + self._background_tokens
            if prompt.priority >= BACKGROUND and (
                self._background_tokens >= room
                or running >= self._step.tokens
                or len(self._running) >= self._step.prompts
            ):
                return
            if self._running and not self._memory.allows(running + prompt.tokens, now):
                return
            self._add(heapq.heappop(self._deferred))

    def _background_room(self, now: float) -> int:
        """The most tokens of background work in the next step: none while interactive work runs or waits."""
        urgent = self._urgent_tokens > 0 or self._deferred[0].priority < BACKGROUND
        if urgent and now - self._admitted_at < MAX_DEFERRAL_SECONDS:
            return 0
        is_small = urgent or now - self._urgent_at < SMALL_STEP_SECONDS
        return self._step.shared_tokens if is_small else self._step.tokens

    def _compute(self) -> None:
        """Compute one step and resolve its outputs. Raises what breaks the engine."""
        started = time.perf_counter()
        try:
            outputs = self._engine.step()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).partition("\n")[0]
        else:
            tokens = sum(self._resolve(output) for output in outputs)
            self._on_step(EngineStep(time.perf_counter() - started, len(outputs), tokens))
            return
        # Outside of the handler: the error's traceback keeps the tensors of the failed step alive.
        self._recover(reason)

    def _recover(self, reason: str) -> None:
        """Take all prompts out of the engine after a step ran out of memory, and have them computed in smaller steps.

        The allocator has already released its own cache before it gave up, so the same step would fail again.
        """
        failed = list(self._running.values())
        tokens = min(self._urgent_tokens + self._background_tokens, self._step.tokens)
        self._engine.abort_request(list(self._running))
        self._running.clear()
        self._urgent_tokens = self._background_tokens = 0
        self._free_memory()
        if len(failed) == 1:
            work = failed[0].work
            self._drop(work)
            logger.warning(
                "out of memory in a step of one prompt; its batch fails", extra={"tokens": tokens, "error": reason}
            )
            message = f"the engine has too little memory for one prompt of {tokens} tokens"
            work.done.set_exception(TransientEngineError(message))
            return
        limit = self._memory.halve(tokens, self._clock())
        logger.warning("out of memory in a step", extra={"tokens": tokens, "next_tokens": limit, "error": reason})
        for prompt in failed:
            heapq.heappush(self._deferred, prompt)

    def _add(self, prompt: Prompt) -> bool:
        """Add a prompt to the engine. Returns False when the engine refuses it, which fails its batch."""
        work, rendered = prompt.work, prompt.work.inputs[prompt.position]
        request_id = str(next(self._ids))
        try:
            self._engine.add_request(request_id, rendered["prompts"], rendered["params"], priority=work.priority)
        except Exception as error:
            # The engine refuses this prompt only: other batches continue.
            self._drop(work)
            work.done.set_exception(EngineError(f"the engine refuses this batch: {' '.join(str(error).split())}"))
            return False
        self._running[request_id] = prompt
        self._count(prompt, 1)
        return True

    def _count(self, prompt: Prompt, sign: int) -> None:
        if prompt.priority < BACKGROUND:
            self._urgent_tokens += sign * prompt.tokens
        else:
            self._background_tokens += sign * prompt.tokens

    def _abort(self, work: EngineBatch) -> None:
        """Remove the rest of a batch from the engine; a finished batch stays finished."""
        if work.done.done():
            return
        self._drop(work)
        work.done.set_exception(ScoringAborted())

    def _drop(self, work: EngineBatch) -> None:
        ids = [request_id for request_id, prompt in self._running.items() if prompt.work is work]
        if ids:
            self._engine.abort_request(ids)
        for request_id in ids:
            self._count(self._running.pop(request_id), -1)
        if any(prompt.work is work for prompt in self._deferred):
            self._deferred = [prompt for prompt in self._deferred if prompt.work is not work]
            heapq.heapify(self._deferred)

    def _resolve(self, output: Any) -> int:
        """Store an output. Returns the tokens of its prompt."""
        prompt = self._running.pop(output.request_id)
        self._count(prompt, -1)
        work = prompt.work
        work.outputs[prompt.position] = output
        work.unfinished -= 1
        if work.unfinished == 0:
            work.done.set_result(work.outputs)
        return prompt.tokens
