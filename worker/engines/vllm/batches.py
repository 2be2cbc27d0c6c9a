"""What the step loop works on: batches of rendered prompts, and an engine that steps. Imports no engine library."""

import queue
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from worker.engines.base import BatchScores
from worker.engines.scoring.base import Prepared


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


class PendingScores:
    """A batch in the engine. `result` converts vLLM's outputs to scores, on the caller's thread."""

    def __init__(self, work: EngineBatch, prepared: Prepared) -> None:
        self._work = work
        self._prepared = prepared

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        self._work.done.add_done_callback(callback)

    def result(self) -> BatchScores:
        return self._prepared.scores(self._work.done.result())


@dataclass(frozen=True, slots=True)
class AbortBatch:
    """Asks the loop to drop a batch that was cancelled."""

    work: EngineBatch


class Prompt(NamedTuple):
    """One prompt of a batch. Prompts are ordered by priority, then by age."""

    priority: int
    age: int
    work: EngineBatch
    position: int

    @property
    def tokens(self) -> int:
        return int(self.work.inputs[self.position]["tokens"])


Inbox = queue.SimpleQueue[EngineBatch | AbortBatch | None]
