"""Loads the Lua scripts, and runs several script calls in one round trip, blocking or with asyncio."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
import redis.asyncio
from redis.exceptions import NoScriptError

from shared.store.client import is_damage

_LUA = Path(__file__).parent / "lua"
_LIBRARIES = ("_order", "_lists", "_webhooks", "_common", "_claim")
"""The functions that scripts share, each file after those that it uses."""


def script_source(name: str) -> str:
    """The source of one script, prefixed with the shared functions."""
    return "".join((_LUA / f"{part}.lua").read_text() for part in (*_LIBRARIES, name))


@dataclass(frozen=True, slots=True)
class ScriptCall:
    """One call of a registered script."""

    script: Any
    keys: Sequence[str]
    args: Sequence[Any]

    def command(self) -> tuple[Any, ...]:
        return ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.args)


def call_scripts(client: redis.Redis, calls: Sequence[ScriptCall]) -> list[Any]:
    """Run script calls in one round trip. Returns their results in order; raises the first error of an outage.

    The result of a call that met damaged data (see shared.store.client.is_damage) is that error; the others are valid.

    redis-py's pipelines ask Redis before each execution whether it knows the scripts. Here a script that Redis has
    forgotten is loaded and called again; the other calls have run by then, and are not repeated.
    """
    results = _send(client, calls)
    if forgotten := _forgotten(results):
        again = [calls[position] for position in forgotten]
        for source in _sources(again):
            client.script_load(source)
        for position, result in zip(forgotten, _send(client, again), strict=True):
            results[position] = result
    for result in results:
        if isinstance(result, Exception) and not is_damage(result):
            raise result
    return results


class ScriptPipeline:
    """Script calls from asyncio. Calls in the same turn of the event loop share a round trip.

    Under load requests arrive in bursts, and a single call costs several times as much as one of many. Calls never wait
    for each other: those of the next turn are sent in the next turn.
    """

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._waiting: list[tuple[ScriptCall, asyncio.Future[Any]]] = []
        self._sending: set[asyncio.Task[None]] = set()

    async def call(self, call: ScriptCall) -> Any:
        """The script's result. Raises what Redis or the connection raises.

        Cancellation takes effect after the call has completed, so that later calls of the task run after it.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((call, future))
        if len(self._waiting) == 1:
            task = asyncio.create_task(self._send())
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait({future})
            raise

    async def _send(self) -> None:
        batch, self._waiting = self._waiting, []
        try:
            results = await self._run([call for call, _ in batch])
        except BaseException as error:
            results = [error] * len(batch)
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():
                continue
            if isinstance(result, BaseException):
                future.set_exception(result)
                # Mark the error as retrieved: a cancelled caller does not read it, and asyncio would log it.
                future.exception()
            else:
                future.set_result(result)

    async def _run(self, calls: Sequence[ScriptCall]) -> list[Any]:
        results = await self._execute(calls)
        if forgotten := _forgotten(results):
            again = [calls[position] for position in forgotten]
            for source in _sources(again):
                await self._client.script_load(source)
            for position, result in zip(forgotten, await self._execute(again), strict=True):
                results[position] = result
        return results

    async def _execute(self, calls: Sequence[ScriptCall]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipe:
            for call in calls:
                pipe.execute_command(*call.command())
            return await pipe.execute(raise_on_error=False)


def _forgotten(results: Sequence[Any]) -> list[int]:
    """The positions of calls that Redis refused because it does not know their script."""
    return [position for position, result in enumerate(results) if isinstance(result, NoScriptError)]


def _sources(calls: Sequence[ScriptCall]) -> set[str]:
    return {call.script.script for call in calls}


def _send(client: redis.Redis, calls: Sequence[ScriptCall]) -> list[Any]:
    with client.pipeline(transaction=False) as pipe:
        for call in calls:
            pipe.execute_command(*call.command())  # type: ignore[no-untyped-call]
        return pipe.execute(raise_on_error=False)
