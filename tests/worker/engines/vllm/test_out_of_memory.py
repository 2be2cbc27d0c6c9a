"""What the step loop does when a step runs out of memory, with an engine that does so on purpose."""

import queue
from collections.abc import Callable
from typing import Any

import pytest

from tests.worker.engines.vllm.test_step_loop import STEP, Output, SteppedEngine, background, texts, work
from worker.engines.base import ScoringAborted, TransientEngineError
from worker.engines.vllm.batches import AbortBatch, EngineBatch, Inbox
from worker.engines.vllm.memory import RECOVERY_SECONDS
from worker.engines.vllm.step_loop import EngineLoop


class SmallMemoryEngine(SteppedEngine):
    """Runs out of memory in steps of more prompts than `fits`. Keeps their prompts, as vLLM's scheduler does."""

    def __init__(self, fits: int) -> None:
        super().__init__()
        self.fits = fits
        self.failed: list[int] = []
        self.in_engine_when_freed: list[int] = []

    def step(self) -> list[Output]:
        if len(self.waiting) > self.fits:
            self.failed.append(len(self.waiting))
            raise MemoryError("no memory left")
        return super().step()

    def free_memory(self) -> None:
        self.in_engine_when_freed.append(len(self.waiting))


def run(
    engine: SmallMemoryEngine,
    batches: list[EngineBatch],
    *,
    inbox: Inbox | None = None,
    clock: Callable[[], float] = lambda: 0.0,
) -> None:
    """Run the loop until all batches are done."""
    arrivals: Inbox = inbox or queue.SimpleQueue()

    def stop_after_all(_: object) -> None:
        if all(batch.done.done() for batch in batches):
            arrivals.put(None)

    for batch in batches:
        batch.done.add_done_callback(stop_after_all)
        arrivals.put(batch)
    EngineLoop(engine, arrivals, STEP, free_memory=engine.free_memory, clock=clock).run()


def prompts(done: EngineBatch) -> str:
    return "".join(texts(done)).replace("!", "")


@pytest.mark.parametrize("make", [lambda letters: work(*letters), background], ids=["interactive", "background"])
def test_a_step_that_does_not_fit_is_repeated_in_halves(make: Callable[[str], EngineBatch]) -> None:
    engine, batch = SmallMemoryEngine(fits=1), make("abcd")
    run(engine, [batch])
    assert prompts(batch) == "abcd"
    assert engine.failed == [4, 2]
    assert engine.steps == ["a", "b", "c", "d"]


def test_no_prompt_is_in_the_engine_when_memory_is_freed() -> None:
    engine = SmallMemoryEngine(fits=1)
    run(engine, [work(*"abcd"), background("ef")])
    assert len(engine.in_engine_when_freed) >= 2
    assert set(engine.in_engine_when_freed) == {0}


def test_interactive_prompts_keep_their_place_before_background_ones() -> None:
    engine, urgent, later = SmallMemoryEngine(fits=1), work(*"ABCD"), background("ef")
    run(engine, [later, urgent])
    assert [prompts(urgent), prompts(later)] == ["ABCD", "ef"]
    assert "".join(engine.steps).startswith("ABCD")


def test_work_that_arrives_later_is_computed_in_small_steps_too() -> None:
    engine, inbox = SmallMemoryEngine(fits=2), queue.SimpleQueue[EngineBatch | AbortBatch | None]()
    first, second = work(*"abcd"), work(*"efgh")
    first.done.add_done_callback(lambda _: inbox.put(second))
    second.done.add_done_callback(lambda _: inbox.put(None))
    inbox.put(first)
    EngineLoop(engine, inbox, STEP, free_memory=engine.free_memory).run()
    assert engine.failed == [4]
    assert engine.steps == ["ab", "cd", "ef", "gh"]


def test_steps_grow_again_after_a_while() -> None:
    now = iter(RECOVERY_SECONDS / 2 * reading for reading in range(1000))
    engine, batch = SmallMemoryEngine(fits=3), background("abcdefghijkl")
    engine.during = {1: lambda: setattr(engine, "fits", 100)}
    run(engine, [batch], clock=lambda: next(now))
    assert engine.failed == [4]
    assert max(map(len, engine.steps)) == STEP.tokens


def test_a_prompt_that_does_not_fit_alone_fails_its_batch_and_the_others_continue() -> None:
    class NoRoomForX(SmallMemoryEngine):
        def step(self) -> list[Output]:
            if any(text == "X!" for *_, text in self.waiting):
                self.failed.append(len(self.waiting))
                raise MemoryError
            return super().step()

    engine, good, bad, later = NoRoomForX(fits=100), work(*"ab"), work(*"cXd"), background("ef")
    run(engine, [good, bad, later])
    with pytest.raises(TransientEngineError, match=r"^the engine has too little memory for one prompt of 1 tokens$"):
        bad.done.result(timeout=1)
    assert [prompts(good), prompts(later)] == ["ab", "ef"]
    assert engine.failed[-1] == 1
    assert engine.waiting == []


def test_finished_parts_of_a_batch_are_not_computed_again() -> None:
    engine, batch = SmallMemoryEngine(fits=100), background("abcdefgh")
    engine.during = {1: lambda: setattr(engine, "fits", 2)}
    run(engine, [batch])
    assert prompts(batch) == "abcdefgh"
    assert engine.steps == ["abcd", "ef", "gh"]


def test_work_can_be_aborted_while_it_waits_for_a_smaller_step() -> None:
    engine, inbox = SmallMemoryEngine(fits=1), queue.SimpleQueue[EngineBatch | AbortBatch | None]()
    aborted, other = work(*"abcd"), work("e")
    engine.during = {1: lambda: inbox.put(AbortBatch(aborted))}
    run(engine, [aborted, other], inbox=inbox)
    with pytest.raises(ScoringAborted):
        aborted.done.result(timeout=1)
    assert prompts(other) == "e"
    assert engine.steps == ["a", "e"]


def test_an_engine_that_cannot_free_its_memory_breaks() -> None:
    engine = SmallMemoryEngine(fits=0)

    def refuse() -> Any:
        raise RuntimeError("the engine still holds prompts")

    inbox: Inbox = queue.SimpleQueue()
    inbox.put(work("a"))
    with pytest.raises(RuntimeError, match="still holds prompts"):
        EngineLoop(engine, inbox, STEP, free_memory=refuse).run()
