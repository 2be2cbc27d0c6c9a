import threading
from collections.abc import Iterator

import pytest

from tests.worker.support import wait_until
from worker.gate import Gate

A_WHILE_SECONDS = 0.05
"""Long enough for a thread that may pass to have passed."""


class Visitor:
    """Passes on a thread of its own, and stays inside until it is told to go."""

    def __init__(self, gate: Gate, *, alone: bool) -> None:
        self._gate = gate
        self._alone = alone
        self._inside = threading.Event()
        self._told_to_go = threading.Event()
        self._thread = threading.Thread(target=self._visit, daemon=True)
        self._thread.start()

    def _visit(self) -> None:
        with self._gate.passing(alone=self._alone):
            self._inside.set()
            self._told_to_go.wait(20)

    def gets_inside(self) -> bool:
        return self._inside.wait(10)

    def waits_outside(self) -> bool:
        return not self._inside.wait(A_WHILE_SECONDS)

    def go(self) -> None:
        self._told_to_go.set()
        self._thread.join(10)
        assert not self._thread.is_alive()


class Door:
    """Lets visitors come to one gate."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.visitors: list[Visitor] = []

    def visitor(self, *, alone: bool = False) -> Visitor:
        visitor = Visitor(self.gate, alone=alone)
        self.visitors.append(visitor)
        return visitor

    def suspect(self) -> Visitor:
        return self.visitor(alone=True)


@pytest.fixture
def door() -> Iterator[Door]:
    door = Door()
    yield door
    for visitor in door.visitors:
        visitor.go()


def test_many_pass_together(door: Door) -> None:
    assert all(visitor.gets_inside() for visitor in [door.visitor() for _ in range(5)])


def test_one_that_must_be_alone_waits_until_all_others_are_gone(door: Door) -> None:
    others = [door.visitor(), door.visitor()]
    assert all(visitor.gets_inside() for visitor in others)
    suspect = door.suspect()
    assert suspect.waits_outside()
    others[0].go()
    assert suspect.waits_outside()
    others[1].go()
    assert suspect.gets_inside()


def test_while_it_is_inside_nobody_else_passes(door: Door) -> None:
    suspect = door.suspect()
    assert suspect.gets_inside()
    other, second = door.visitor(), door.suspect()
    assert other.waits_outside()
    assert second.waits_outside()
    suspect.go()
    assert second.gets_inside()
    assert other.waits_outside()
    second.go()
    assert other.gets_inside()


def test_while_it_waits_nobody_passes_before_it(door: Door) -> None:
    """Or it would wait for ever in a busy worker."""
    first = door.visitor()
    assert first.gets_inside()
    suspect = door.suspect()
    assert suspect.waits_outside()
    late = door.visitor()
    assert late.waits_outside()
    first.go()
    assert suspect.gets_inside()
    suspect.go()
    assert late.gets_inside()


@pytest.mark.parametrize("alone", [False, True])
def test_whoever_fails_inside_is_gone_too(door: Door, alone: bool) -> None:
    with pytest.raises(ZeroDivisionError), door.gate.passing(alone=alone):
        raise ZeroDivisionError
    for visitor in (door.suspect(), door.visitor()):
        assert visitor.gets_inside()
        visitor.go()


def test_a_crowd_of_both_kinds_gets_through(door: Door) -> None:
    lock = threading.Lock()
    together = alone = 0
    mistakes: list[tuple[int, int]] = []

    def pass_often(number: int) -> None:
        nonlocal together, alone
        for turn in range(30):
            is_alone = (number + turn) % 5 == 0
            with door.gate.passing(alone=is_alone):
                with lock:
                    together, alone = together + (not is_alone), alone + is_alone
                    if alone > 1 or (alone and together):
                        mistakes.append((together, alone))
                with lock:
                    together, alone = together - (not is_alone), alone - is_alone

    threads = [threading.Thread(target=pass_often, args=(number,), daemon=True) for number in range(8)]
    for thread in threads:
        thread.start()
    wait_until(lambda: not any(thread.is_alive() for thread in threads), seconds=20)
    assert mistakes == []
