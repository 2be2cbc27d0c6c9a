"""The asyncio client under more concurrent commands than it has connections."""

import asyncio
from typing import Any, cast

import pytest
import redis.asyncio
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.store import client as store_client
from shared.store.client import connect_async


@pytest.fixture(params=["one loop turn", "steady"])
def pause(request: pytest.FixtureRequest) -> float:
    return 0.0 if request.param == "one loop turn" else 0.0001


async def test_a_burst_of_commands_waits_for_connections(redis_url: str, pause: float) -> None:
    async def set_and_get(client: redis.asyncio.Redis, number: int) -> bytes | None:
        await asyncio.sleep(pause * number)
        await client.set(f"key-{number}", number)
        found: Any = await client.get(f"key-{number}")
        return cast(bytes | None, found)

    async with connect_async(redis_url) as client:
        others = len(await client.client_list()) - 1
        found = await asyncio.gather(*(set_and_get(client, number) for number in range(2000)))
        assert found == [str(number).encode() for number in range(2000)]
        connections = len(await client.client_list()) - others
    assert connections <= 101


async def test_callers_that_give_up_leave_their_turn_to_others(redis_url: str) -> None:
    async with connect_async(redis_url) as client:

        async def ping() -> Any:
            return await client.ping()

        tasks = [asyncio.create_task(ping()) for _ in range(1000)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(outcome is True for outcome in outcomes[1::2])
        assert await client.ping()


async def test_waiting_for_a_connection_has_an_end(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_client, "SOCKET_TIMEOUT_SECONDS", 0.2)
    async with connect_async(redis_url) as client:
        pool: Any = client.connection_pool
        held = [await pool.get_connection() for _ in range(100)]
        with pytest.raises(RedisConnectionError, match="in use"):
            await client.ping()
        for connection in held:
            await pool.release(connection)
        assert await client.ping()


@pytest.mark.parametrize(
    "command", [("SET", "key", "ä€"), ("SET", b"key", b"\0\xff"), ("SET", "key", 7), ("SET", "key", 0.5)]
)
async def test_commands_are_encoded_as_redis_py_does(redis_url: str, command: tuple[Any, ...]) -> None:
    async with connect_async(redis_url) as client, redis.asyncio.Redis.from_url(redis_url) as plain:
        pools: list[Any] = [client.connection_pool, plain.connection_pool]
        ours, theirs = (pool.make_connection() for pool in pools)
        assert b"".join(ours.pack_command(*command)) == b"".join(theirs.pack_command(*command))
        assert b"".join(ours.pack_commands([command] * 3)) == b"".join(theirs.pack_commands([command] * 3))
        assert ours.pack_command("CLIENT SETINFO", "a") == theirs.pack_command("CLIENT SETINFO", "a")
