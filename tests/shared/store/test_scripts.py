import asyncio
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

import shared
from shared.store.client import connect, connect_async
from shared.store.scripts import ScriptCall, ScriptPipeline, call_scripts, script_source
from tests.shared.support import dead_redis_url

ECHO = "return {KEYS[1], ARGV[1]}"
COUNT = "return redis.call('INCR', KEYS[1])"
FAIL = "return redis.error_reply('script failed')"


@pytest.fixture
def scripts(redis_client: redis.Redis) -> dict[str, Any]:
    return {
        name: redis_client.register_script(text) for name, text in (("echo", ECHO), ("count", COUNT), ("fail", FAIL))
    }


def test_every_script_starts_with_the_shared_functions() -> None:
    folder = Path(shared.__file__).parent / "store" / "lua"
    names = {path.stem for path in folder.glob("[!_]*.lua")}
    libraries = [
        (folder / f"{name}.lua").read_text() for name in ("_order", "_lists", "_webhooks", "_common", "_claim")
    ]
    assert {"claim", "finish", "claim_next"} <= names
    assert len(libraries) == len(list(folder.glob("_*.lua")))
    for name in names:
        assert script_source(name) == "".join([*libraries, (folder / f"{name}.lua").read_text()])


def test_results_are_in_the_order_of_the_calls(redis_client: redis.Redis, scripts: dict[str, Any]) -> None:
    calls = [ScriptCall(scripts["echo"], [f"key {number}"], [number]) for number in range(5)]
    expected = [[f"key {number}".encode(), str(number).encode()] for number in range(5)]
    # On the first call, Redis does not have the script yet.
    assert call_scripts(redis_client, calls) == expected
    assert call_scripts(redis_client, calls[::-1]) == expected[::-1]


def test_empty_list_of_calls_needs_no_connection() -> None:
    with connect(dead_redis_url()) as client:
        assert call_scripts(client, []) == []


def test_many_calls_need_one_round_trip(redis_client: Any, scripts: dict[str, Any]) -> None:
    calls = [ScriptCall(scripts["count"], ["counter"], ())] * 50
    call_scripts(redis_client, calls)
    before = redis_client.info("stats")
    call_scripts(redis_client, calls)
    after = redis_client.info("stats")
    # The one additional command is the second INFO.
    assert after["total_commands_processed"] - before["total_commands_processed"] <= 2 * 50 + 1
    assert after["total_reads_processed"] - before["total_reads_processed"] <= 3


def test_only_calls_of_missing_scripts_are_repeated(redis_client: Any, scripts: dict[str, Any]) -> None:
    redis_client.script_flush()
    redis_client.script_load(COUNT)
    calls = [
        ScriptCall(scripts["count"], ["counter"], ()),
        ScriptCall(scripts["echo"], ["a key"], ["a word"]),
        ScriptCall(scripts["count"], ["counter"], ()),
        ScriptCall(scripts["echo"], ["another key"], ["another word"]),
    ]
    assert call_scripts(redis_client, calls) == [1, [b"a key", b"a word"], 2, [b"another key", b"another word"]]
    assert redis_client.get("counter") == b"2"


def test_first_error_is_raised_after_all_calls(redis_client: Any, scripts: dict[str, Any]) -> None:
    count = ScriptCall(scripts["count"], ["counter"], ())
    with pytest.raises(redis.ResponseError, match="script failed"):
        call_scripts(redis_client, [count, ScriptCall(scripts["fail"], (), ()), count])
    assert redis_client.get("counter") == b"2"


def test_unreachable_redis_raises(scripts: dict[str, Any]) -> None:
    with connect(dead_redis_url()) as client, pytest.raises(redis.ConnectionError):
        call_scripts(client, [ScriptCall(scripts["count"], ["counter"], ())])


class TestScriptPipeline:
    @pytest.fixture
    def pipe(self, async_client: redis.asyncio.Redis) -> ScriptPipeline:
        return ScriptPipeline(async_client)

    async def test_each_caller_gets_its_own_result_when_redis_has_no_scripts(
        self, pipe: ScriptPipeline, scripts: dict[str, Any], redis_client: redis.Redis
    ) -> None:
        redis_client.script_flush()
        calls = [pipe.call(ScriptCall(scripts["echo"], [f"key {number}"], [number])) for number in range(5)]
        assert await asyncio.gather(*calls) == [[f"key {number}".encode(), str(number).encode()] for number in range(5)]

    async def test_calls_of_one_event_loop_iteration_share_a_round_trip(
        self, pipe: ScriptPipeline, scripts: dict[str, Any], redis_client: Any
    ) -> None:
        call = ScriptCall(scripts["count"], ["counter"], ())
        await asyncio.gather(*[pipe.call(call) for _ in range(50)])
        before = redis_client.info("stats")
        assert sorted(await asyncio.gather(*[pipe.call(call) for _ in range(50)])) == list(range(51, 101))
        after = redis_client.info("stats")
        # All calls share one connection, and Redis reads from it only a few times.
        assert after["total_connections_received"] == before["total_connections_received"]
        assert after["total_reads_processed"] - before["total_reads_processed"] <= 5

    async def test_error_is_raised_only_to_its_caller(self, pipe: ScriptPipeline, scripts: dict[str, Any]) -> None:
        results = await asyncio.gather(
            pipe.call(ScriptCall(scripts["echo"], ["k"], ["a"])),
            pipe.call(ScriptCall(scripts["fail"], [], ())),
            pipe.call(ScriptCall(scripts["count"], ["counter"], ())),
            return_exceptions=True,
        )
        assert results[0] == [b"k", b"a"]
        assert isinstance(results[1], redis.ResponseError)
        assert results[2] == 1

    async def test_unreachable_redis_raises_to_every_caller(self) -> None:
        async with connect_async(dead_redis_url()) as client:
            pipe = ScriptPipeline(client)
            call = ScriptCall(client.register_script(ECHO), ["k"], ["a"])
            for result in await asyncio.gather(pipe.call(call), pipe.call(call), return_exceptions=True):
                assert isinstance(result, redis.ConnectionError)

    async def test_cancelled_call_is_still_executed(
        self, pipe: ScriptPipeline, scripts: dict[str, Any], redis_client: redis.Redis
    ) -> None:
        calling = asyncio.create_task(pipe.call(ScriptCall(scripts["count"], ["counter"], ())))
        await asyncio.sleep(0)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        assert redis_client.get("counter") == b"1"
