import asyncio
import logging
from typing import Any

import pytest

from api.pools import PoolWatch
from shared.heartbeats import HeartbeatWriter, PoolHealth, WorkerState
from shared.redis_client import connect_async
from tests.api.conftest import stop_background
from tests.shared.support import MODEL, dead_redis_url

UNKNOWN = PoolHealth(ready=0, starting=0, failure=None)


def beat(client: Any, state: WorkerState, *, model: str = MODEL, reason: str = "") -> None:
    HeartbeatWriter(client, model, f"worker-{state}").beat(state, reason)


def test_before_the_first_look_nothing_is_known(async_client: Any) -> None:
    watch = PoolWatch(async_client, [MODEL])
    assert watch.all() == {MODEL: UNKNOWN}
    assert not watch.store_reachable


async def test_a_look_shows_every_pool(async_client: Any, redis_client: Any) -> None:
    beat(redis_client, WorkerState.READY)
    beat(redis_client, WorkerState.FAILED, model="broken", reason="no weights")
    watch = PoolWatch(async_client, [MODEL, "broken", "silent"])
    await watch.refresh()
    assert watch.store_reachable
    assert watch.health(MODEL).ready == 1
    assert (watch.health("broken").down, watch.health("broken").failure) == (True, "no weights")
    assert watch.health("silent") == UNKNOWN


async def test_it_keeps_looking(async_client: Any, redis_client: Any) -> None:
    watch = PoolWatch(async_client, [MODEL])
    running = asyncio.create_task(watch.run())
    beat(redis_client, WorkerState.READY)
    for _ in range(300):
        if watch.health(MODEL).ready:
            break
        await asyncio.sleep(0.01)
    await stop_background()
    assert running.done()
    assert watch.health(MODEL).ready == 1


async def test_without_redis_the_last_look_stands_and_is_logged_once(
    async_client: Any, redis_client: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    beat(redis_client, WorkerState.READY)
    watch = PoolWatch(async_client, [MODEL])
    await watch.refresh()

    dead = connect_async(dead_redis_url())
    monkeypatch.setattr(watch, "_client", dead)
    with caplog.at_level(logging.WARNING):
        await watch.refresh()
        await watch.refresh()
    await dead.aclose()
    assert not watch.store_reachable
    assert watch.health(MODEL).ready == 1
    assert len([record for record in caplog.records if "cannot be reached" in record.message]) == 1
