import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from worker.engines.base import BACKGROUND, EngineError, ScoringAborted
from worker.engines.vllm.batches import AbortBatch, EngineBatch, Inbox
from worker.engines.vllm.step_loop import EngineLoop
from worker.engines.vllm.step_sizes import StepSize

STEP = StepSize(tokens=4, prompts=100, shared_tokens=2)


@dataclass
class Output:
    request_id: str
    text: str


class EchoEngine:
    """Returns one prompt per step as its output, the one with the lowest priority number first."""

    def __init__(self) -> None:
        self.waiting: list[tuple[int, int, str, str]] = []
        self.broken = False

    def add_request(self, request_id: str, prompt: Any, params: Any, *, priority: int) -> None:
        if prompt == "nonsense":
            raise ValueError("this prompt\nmakes no sense")
        self.waiting.append((priority, int(request_id), request_id, prompt + params))

    def abort_request(self, request_ids: list[str]) -> None:
        self.waiting = [entry for entry in self.waiting if entry[2] not in request_ids]

    def step(self) -> list[Output]:
        if self.broken:
            raise RuntimeError("the device is lost")
        if not self.waiting:
            return []
        self.waiting.sort()
        *_, request_id, text = self.waiting.pop(0)
        return [Output(request_id, text)]


def work(*prompts: str, priority: int = 0) -> EngineBatch:
    return EngineBatch([{"prompts": prompt, "params": "!", "tokens": 1} for prompt in prompts], priority)


def texts(done: EngineBatch) -> list[str]:
    return [output.text for output in done.done.result(timeout=5)]


@pytest.fixture
def inbox() -> Inbox:
    return queue.SimpleQueue()


@pytest.fixture
def engine(inbox: Inbox) -> Iterator[EchoEngine]:
    """An engine whose loop runs on a separate thread until the end of the test."""
    engine = EchoEngine()
    thread = threading.Thread(target=EngineLoop(engine, inbox, STEP).run, daemon=True)
    thread.start()
    yield engine
    inbox.put(None)
    thread.join(timeout=5)
    assert not thread.is_alive()


@pytest.mark.usefixtures("engine")
def test_every_batch_gets_its_outputs_in_order(inbox: Inbox) -> None:
    batches = [work("a", "b", "c"), work("d"), work("e", "f")]
    for batch in batches:
        inbox.put(batch)
    assert [texts(batch) for batch in batches] == [["a!", "b!", "c!"], ["d!"], ["e!", "f!"]]


def test_a_lower_priority_number_is_computed_sooner() -> None:
    engine, inbox = EchoEngine(), queue.SimpleQueue[EngineBatch | AbortBatch | None]()
    late, soon = work("late", priority=1000), work("soon", priority=0)
    order: list[str] = []

    def on_done(name: str, _: object) -> None:
        order.append(name)
        inbox.put(None)

    for batch, name in ((late, "late"), (soon, "soon")):
        batch.done.add_done_callback(partial(on_done, name))
        inbox.put(batch)
    EngineLoop(engine, inbox, STEP).run()
    assert order[0] == "soon"


def test_when_the_engine_breaks_every_waiting_batch_fails() -> None:
    engine, inbox = EchoEngine(), queue.SimpleQueue[EngineBatch | AbortBatch | None]()
    running, waiting = work("a", "b"), work("c")
    inbox.put(running)
    loop = EngineLoop(engine, inbox, STEP)
    engine.broken = True
    with pytest.raises(RuntimeError):
        loop.run()
    inbox.put(waiting)
    loop.fail_all(EngineError("the engine broke"))
    for batch in (running, waiting):
        with pytest.raises(EngineError, match="the engine broke"):
            batch.done.result(timeout=1)


class TestAbort:
    def test_an_aborted_batch_leaves_the_engine_and_other_batches_continue(self) -> None:
        engine, inbox = EchoEngine(), queue.SimpleQueue[EngineBatch | AbortBatch | None]()
        aborted, other = work("a", "b", "c"), work("d", priority=1)
        for arrival in (aborted, other, AbortBatch(aborted)):
            inbox.put(arrival)
        other.done.add_done_callback(lambda _: inbox.put(None))
        EngineLoop(engine, inbox, STEP).run()
        with pytest.raises(ScoringAborted):
            aborted.done.result(timeout=1)
        assert texts(other) == ["d!"]
        assert engine.waiting == []

    def test_the_rest_of_a_partly_finished_batch_is_aborted(self) -> None:
        class Interrupted(EchoEngine):
            def step(self) -> list[Output]:
                outputs = super().step()
                if outputs[-1:] and outputs[-1].text == "a!":
                    inbox.put(AbortBatch(aborted))
                    inbox.put(None)
                return outputs

        engine, inbox = Interrupted(), queue.SimpleQueue[EngineBatch | AbortBatch | None]()
        aborted = work("a", "b", "c")
        inbox.put(aborted)
        EngineLoop(engine, inbox, STEP).run()
        with pytest.raises(ScoringAborted):
            aborted.done.result(timeout=1)
        assert engine.waiting == []

    @pytest.mark.usefixtures("engine")
    def test_a_finished_batch_stays_finished(self, inbox: Inbox) -> None:
        done, later = work("a"), work("b")
        inbox.put(done)
        assert texts(done) == ["a!"]
        inbox.put(AbortBatch(done))
        inbox.put(later)
        assert texts(later) == ["b!"]
        assert texts(done) == ["a!"]

    @pytest.mark.usefixtures("engine")
    def test_a_batch_can_be_aborted_twice(self, inbox: Inbox) -> None:
        aborted, later = work("a"), work("b")
        inbox.put(AbortBatch(aborted))
        inbox.put(AbortBatch(aborted))
        inbox.put(later)
        assert texts(later) == ["b!"]
        with pytest.raises(ScoringAborted):
            aborted.done.result(timeout=1)

    def test_when_the_engine_breaks_an_aborted_batch_stays_aborted(self) -> None:
        engine, inbox = EchoEngine(), queue.SimpleQueue[EngineBatch | AbortBatch | None]()
        aborted, waiting = work("a"), work("b")
        for arrival in (aborted, AbortBatch(aborted), waiting):
            inbox.put(arrival)
        loop = EngineLoop(engine, inbox, STEP)
        engine.broken = True
        with pytest.raises(RuntimeError):
            loop.run()
        inbox.put(AbortBatch(waiting))
        loop.fail_all(EngineError("the engine broke"))
        with pytest.raises(ScoringAborted):
            aborted.done.result(timeout=1)
        with pytest.raises(EngineError, match="the engine broke"):
            waiting.done.result(timeout=1)


class SteppedEngine(EchoEngine):
    """Computes all its prompts in one step, records each step, and calls `during` with its number."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[str] = []
        self.during: dict[int, Callable[[], object]] = {}

    def step(self) -> list[Output]:
        prompts, self.waiting = sorted(self.waiting), []
        self.steps.append("".join(text.removesuffix("!") for *_, text in prompts))
        self.during.get(len(self.steps), lambda: None)()
        return [Output(request_id, text) for _, _, request_id, text in prompts]


class TestBackground:
    def steps(
        self,
        arrivals: list[EngineBatch],
        then: dict[int, EngineBatch],
        *,
        clock: Callable[[], float] = lambda: 0.0,
        step: StepSize = STEP,
    ) -> list[str]:
        """Run the loop with `arrivals`, and with the batches of `then` arriving during the step of their number.

        Returns the prompts of each step.
        """
        engine, inbox = SteppedEngine(), queue.SimpleQueue[EngineBatch | AbortBatch | None]()
        engine.during = {number: partial(inbox.put, batch) for number, batch in then.items()}
        batches = [*arrivals, *then.values()]

        def stop_after_all(_: object) -> None:
            if all(batch.done.done() for batch in batches):
                inbox.put(None)

        for batch in batches:
            batch.done.add_done_callback(stop_after_all)
        for batch in arrivals:
            inbox.put(batch)
        EngineLoop(engine, inbox, step, clock=clock).run()
        return engine.steps

    def test_background_work_is_admitted_one_step_at_a_time(self) -> None:
        assert self.steps([background("abcdefghi")], {}) == ["abcd", "efgh", "i"]

    def test_interactive_work_waits_only_for_the_current_step_and_shares_none(self) -> None:
        assert self.steps([background("abcdefgh")], {1: work("X")})[:2] == ["abcd", "X"]

    def test_background_steps_stay_small_for_a_second_after_interactive_work(self) -> None:
        # The clock is read about twice per step.
        now = iter(quarters / 4 for quarters in range(1000))
        steps = self.steps([background("abcdefghijklmnop")], {1: work("X")}, clock=lambda: next(now))
        assert steps == ["abcd", "X", "ef", "gh", "ijkl", "mnop"]

    def test_overdue_background_work_takes_a_small_part_of_a_step(self) -> None:
        now = iter(range(1000))
        assert self.steps([background("abcdef"), work("X")], {}, clock=lambda: next(now))[0] == "Xab"

    def test_short_background_prompts_fill_one_step_only(self) -> None:
        few = StepSize(tokens=100, prompts=3, shared_tokens=100)
        assert self.steps([background("abcdefg")], {}, step=few) == ["abc", "def", "g"]

    def test_background_work_is_not_deferred_forever(self) -> None:
        now = iter(tenths / 10 for tenths in range(1000))
        steps = self.steps(
            [background("ab"), work("0")], {step: work(str(step)) for step in range(1, 30)}, clock=lambda: next(now)
        )
        assert 2 <= next(number for number, step in enumerate(steps) if "a" in step) <= 11

    def test_background_work_is_ordered_by_priority(self) -> None:
        assert self.steps([background("abcd", 7), background("efgh", 3)], {}) == ["efgh", "abcd"]

    def test_aborted_background_work_is_never_admitted(self) -> None:
        engine, inbox = SteppedEngine(), queue.SimpleQueue[EngineBatch | AbortBatch | None]()
        aborted, other = background("abcdefgh"), background("X")
        engine.during = {1: lambda: inbox.put(AbortBatch(aborted))}
        other.done.add_done_callback(lambda _: inbox.put(None))
        for batch in (aborted, other):
            inbox.put(batch)
        EngineLoop(engine, inbox, STEP).run()
        assert engine.steps == ["abcd", "X"]
        with pytest.raises(ScoringAborted):
            aborted.done.result(timeout=1)

    def test_deferred_work_fails_when_the_engine_breaks(self) -> None:
        engine, inbox = EchoEngine(), queue.SimpleQueue[EngineBatch | AbortBatch | None]()
        deferred = background("abc")
        for batch in (work("X"), deferred):
            inbox.put(batch)
        loop = EngineLoop(engine, inbox, STEP)
        engine.broken = True
        with pytest.raises(RuntimeError):
            loop.run()
        loop.fail_all(EngineError("the engine broke"))
        with pytest.raises(EngineError, match="the engine broke"):
            deferred.done.result(timeout=1)


def background(prompts: str, priority: int = 0) -> EngineBatch:
    return work(*prompts, priority=BACKGROUND + priority)


def test_a_prompt_that_the_engine_refuses_fails_only_its_batch(engine: EchoEngine, inbox: Inbox) -> None:
    refused, good = work("one", "nonsense", "two"), work("three")
    inbox.put(refused)
    inbox.put(good)
    with pytest.raises(EngineError, match=r"^the engine refuses this batch: this prompt makes no sense$"):
        refused.done.result(timeout=5)
    assert texts(good) == ["three!"]
    # No prompt of the refused batch is computed, and a late cancellation has no effect.
    inbox.put(AbortBatch(refused))
    assert texts_of_new_batch(inbox) == ["four!"]
    assert engine.waiting == []


def texts_of_new_batch(inbox: Inbox) -> list[str]:
    new = work("four")
    inbox.put(new)
    return texts(new)
