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
FAIL = "return redis.error_reply('no such luck')"


@pytest.fixture
def scripts(redis_client: redis.Redis) -> dict[str, Any]:
    return {
        name: redis_client.register_script(text) for name, text in (("echo", ECHO), ("count", COUNT), ("fail", FAIL))
    }


def test_every_operation_has_the_common_part_in_front() -> None:
    names = {path.stem for path in (Path(shared.__file__).parent / "store" / "lua").glob("*.lua")} - {"_common"}
    assert {"claim", "finish", "dequeue"} <= names
    for name in names:
        assert script_source(name).startswith(
            (Path(shared.__file__).parent / "store" / "lua" / "_common.lua").read_text()
        )


def test_answers_come_in_the_order_of_the_calls(redis_client: redis.Redis, scripts: dict[str, Any]) -> None:
    calls = [ScriptCall(scripts["echo"], [f"key {number}"], [number]) for number in range(5)]
    expected = [[f"key {number}".encode(), str(number).encode()] for number in range(5)]
    # At first Redis knows nothing of the script.
    assert call_scripts(redis_client, calls) == expected
    assert call_scripts(redis_client, calls[::-1]) == expected[::-1]


def test_no_calls_are_no_work() -> None:
    with connect(dead_redis_url()) as client:
        assert call_scripts(client, []) == []


def test_many_calls_are_one_round_trip(redis_client: Any, scripts: dict[str, Any]) -> None:
    calls = [ScriptCall(scripts["count"], ["counter"], ())] * 50
    call_scripts(redis_client, calls)
    before = redis_client.info("stats")
    call_scripts(redis_client, calls)
    after = redis_client.info("stats")
    # The second INFO is the one other command.
    assert after["total_commands_processed"] - before["total_commands_processed"] <= 2 * 50 + 1
    assert after["total_reads_processed"] - before["total_reads_processed"] <= 3


def test_a_script_that_redis_forgot_is_called_again_and_the_others_are_not(
    redis_client: Any, scripts: dict[str, Any]
) -> None:
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


def test_the_first_error_is_raised_and_every_call_was_made(redis_client: Any, scripts: dict[str, Any]) -> None:
    count = ScriptCall(scripts["count"], ["counter"], ())
    with pytest.raises(redis.ResponseError, match="no such luck"):
        call_scripts(redis_client, [count, ScriptCall(scripts["fail"], (), ()), count])
    assert redis_client.get("counter") == b"2"


def test_a_redis_that_is_away_is_said_to_be(scripts: dict[str, Any]) -> None:
    with connect(dead_redis_url()) as client, pytest.raises(redis.ConnectionError):
        call_scripts(client, [ScriptCall(scripts["count"], ["counter"], ())])


class TestCallsFromAsyncio:
    @pytest.fixture
    def pipe(self, async_client: redis.asyncio.Redis) -> ScriptPipeline:
        return ScriptPipeline(async_client)

    async def test_each_caller_gets_its_own_answer_also_from_a_redis_that_knows_no_script(
        self, pipe: ScriptPipeline, scripts: dict[str, Any], redis_client: redis.Redis
    ) -> None:
        redis_client.script_flush()
        calls = [pipe.call(ScriptCall(scripts["echo"], [f"key {number}"], [number])) for number in range(5)]
        assert await asyncio.gather(*calls) == [[f"key {number}".encode(), str(number).encode()] for number in range(5)]

    async def test_calls_of_one_turn_are_one_round_trip(
        self, pipe: ScriptPipeline, scripts: dict[str, Any], redis_client: Any
    ) -> None:
        call = ScriptCall(scripts["count"], ["counter"], ())
        await asyncio.gather(*[pipe.call(call) for _ in range(50)])
        before = redis_client.info("stats")
        assert sorted(await asyncio.gather(*[pipe.call(call) for _ in range(50)])) == list(range(51, 101))
        after = redis_client.info("stats")
        # One connection was enough for all of them, and the loop read from it a few times at most.
        assert after["total_connections_received"] == before["total_connections_received"]
        assert after["total_reads_processed"] - before["total_reads_processed"] <= 5

    async def test_an_error_is_its_own_callers(self, pipe: ScriptPipeline, scripts: dict[str, Any]) -> None:
        answers = await asyncio.gather(
            pipe.call(ScriptCall(scripts["echo"], ["k"], ["a"])),
            pipe.call(ScriptCall(scripts["fail"], [], ())),
            pipe.call(ScriptCall(scripts["count"], ["counter"], ())),
            return_exceptions=True,
        )
        assert answers[0] == [b"k", b"a"]
        assert isinstance(answers[1], redis.ResponseError)
        assert answers[2] == 1

    async def test_without_redis_everybody_is_told(self) -> None:
        async with connect_async(dead_redis_url()) as client:
            pipe = ScriptPipeline(client)
            call = ScriptCall(client.register_script(ECHO), ["k"], ["a"])
            for answer in await asyncio.gather(pipe.call(call), pipe.call(call), return_exceptions=True):
                assert isinstance(answer, redis.ConnectionError)

    async def test_who_is_cancelled_learns_it_when_the_call_is_through(
        self, pipe: ScriptPipeline, scripts: dict[str, Any], redis_client: redis.Redis
    ) -> None:
        calling = asyncio.create_task(pipe.call(ScriptCall(scripts["count"], ["counter"], ())))
        await asyncio.sleep(0)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        assert redis_client.get("counter") == b"1"
