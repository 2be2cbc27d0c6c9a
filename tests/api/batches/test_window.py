"""How many lines of a batch are jobs at once."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from api.batches.window import (
    MAX_BYTES,
    MAX_BYTES_IN_ALL,
    MAX_LINES,
    SHARDS_PER_WORKER,
    WINDOW_SECONDS,
    SharedBytes,
    Window,
)

SHARD_TOKENS = 100
LEAST = SHARDS_PER_WORKER * SHARD_TOKENS
MODEL = "model"


@dataclass
class Pools:
    """Pools with these workers, and a clock."""

    ready: int = 0
    starting: int = 0
    now: float = 50.0
    shared: SharedBytes = field(default_factory=SharedBytes)
    window: Window = field(init=False)

    def __post_init__(self) -> None:
        pools: Any = self
        self.window = Window(pools, SHARD_TOKENS, self.shared, lambda: self.now)

    def pool(self, model: str) -> Any:
        assert model in (MODEL, "other")
        return SimpleNamespace(signals=self)

    def fill(self, size: int = 1, tokens: int = 10, model: str | None = MODEL) -> int:
        """Add equal lines while there is room. Returns how many."""
        count = 0
        while self.window.has_room(model, size):
            self.window.add(model, size, tokens)
            count += 1
        return count


def test_window_holds_some_shards_for_each_worker() -> None:
    assert Pools().fill(tokens=10) == LEAST // 10
    assert Pools(ready=1).fill(tokens=10) == LEAST // 10
    assert Pools(ready=2, starting=1).fill(tokens=10) == 3 * LEAST // 10


def test_ended_lines_make_room() -> None:
    pools = Pools()
    pools.fill(tokens=100)
    assert not pools.window.has_room(MODEL, 1)
    pools.window.remove(MODEL, 1, 100)
    assert pools.window.has_room(MODEL, 1)


def test_window_grows_to_some_seconds_of_work() -> None:
    """10,000 tokens end each second."""
    pools = Pools(ready=1)
    for _ in range(20):
        pools.fill(tokens=100)
        for _ in range(25):
            pools.now += 0.01
            pools.window.remove(MODEL, 1, 100)
    pools.fill(tokens=100)
    held = pools.window._tokens[MODEL]
    assert held == pytest.approx(10_000 * WINDOW_SECONDS, rel=0.2)


def test_window_shrinks_when_lines_end_more_slowly() -> None:
    pools = Pools(ready=1)
    pools.window.add(MODEL, 1, 1_000_000)
    pools.now += 1
    pools.window.remove(MODEL, 1, 1_000_000)
    for _ in range(30):
        pools.window.add(MODEL, 1, 10)
        pools.now += 1
        pools.window.remove(MODEL, 1, 10)
    assert pools.fill(tokens=10) == LEAST // 10


def test_models_have_room_of_their_own() -> None:
    pools = Pools()
    pools.fill()
    assert not pools.window.has_room(MODEL, 1)
    assert pools.fill(model="other") == LEAST // 10
    assert pools.window.has_room(None, 1)


@pytest.mark.parametrize("model", [MODEL, None])
def test_lines_and_bytes_are_limited(model: str | None) -> None:
    assert Pools().fill(tokens=0, model=model) == MAX_LINES
    assert Pools().fill(size=MAX_BYTES // 10, tokens=0, model=model) == 10


def test_single_line_always_fits() -> None:
    pools = Pools()
    assert pools.window.has_room(MODEL, 10 * MAX_BYTES)
    pools.window.add(MODEL, 10 * MAX_BYTES, 10**9)
    assert not pools.window.has_room(MODEL, 1)
    pools.window.remove(MODEL, 10 * MAX_BYTES, 10**9)
    assert pools.window.has_room(MODEL, 10 * MAX_BYTES)


def test_windows_of_a_process_share_a_limit_and_each_always_has_room_for_one_line() -> None:
    shared = SharedBytes()
    counts = [Pools(shared=shared).fill(size=MAX_BYTES // 4, tokens=0) for _ in range(6)]
    assert counts == [4] * (MAX_BYTES_IN_ALL // MAX_BYTES) + [1] * 3
    window = Window(Pools(), SHARD_TOKENS, shared)  # type: ignore[arg-type]
    assert window.has_room(MODEL, MAX_BYTES)
    assert shared.used == MAX_BYTES_IN_ALL + 3 * MAX_BYTES // 4


def test_pool_is_warm_with_a_ready_worker() -> None:
    assert not Pools(starting=1).window.is_warm(MODEL)
    assert Pools(ready=1).window.is_warm(MODEL)
    assert Pools().window.is_warm(None)
