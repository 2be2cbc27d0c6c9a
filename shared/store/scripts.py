"""The ledger's scripts as Redis gets them, and how many calls of them share a round trip."""

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


def script_source(name: str) -> str:
    """The text of one operation, the common part in front."""
    return (_LUA / "_common.lua").read_text() + (_LUA / f"{name}.lua").read_text()


@dataclass(frozen=True, slots=True)
class ScriptCall:
    """One call of a registered script."""

    script: Any
    keys: Sequence[str]
    args: Sequence[Any]

    def words(self) -> tuple[Any, ...]:
        return ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.args)


def call_scripts(client: redis.Redis, calls: Sequence[ScriptCall]) -> list[Any]:
    """Run script calls in one round trip; answers them in order. Raises the first error that is an outage's.

    Where a call met damage (see shared.store.client.is_damage) its answer is that error: the others are good.

    A pipeline of redis-py would ask before each one whether Redis knows its scripts. Here a script that Redis has
    forgotten is loaded and called again; the other calls have run by then, and are not repeated.
    """
    answers = _send(client, calls)
    if forgotten := _forgotten(answers):
        again = [calls[place] for place in forgotten]
        for source in _sources(again):
            client.script_load(source)
        for place, answer in zip(forgotten, _send(client, again), strict=True):
            answers[place] = answer
    for answer in answers:
        if isinstance(answer, Exception) and not is_damage(answer):
            raise answer
    return answers


class ScriptPipeline:
    """Calls from asyncio. Those that come in the same turn of the event loop share a round trip.

    Under load requests come in bunches, and a call that goes by itself costs several times as much as one of many.
    None waits for another: what comes in the next turn is sent in the next turn.
    """

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._waiting: list[tuple[ScriptCall, asyncio.Future[Any]]] = []
        self._sending: set[asyncio.Task[None]] = set()

    async def call(self, call: ScriptCall) -> Any:
        """The script's answer. Raises what Redis or the connection raises.

        A caller that is cancelled learns it when the call is through: what is done next comes after it.
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
        bunch, self._waiting = self._waiting, []
        try:
            answers = await self._answers([call for call, _ in bunch])
        except BaseException as error:
            answers = [error] * len(bunch)
        for (_, future), answer in zip(bunch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, BaseException):
                future.set_exception(answer)
                # A caller that has left asks for nothing: its error is not to be logged as one that nobody saw.
                future.exception()
            else:
                future.set_result(answer)

    async def _answers(self, calls: Sequence[ScriptCall]) -> list[Any]:
        answers = await self._try(calls)
        if forgotten := _forgotten(answers):
            again = [calls[place] for place in forgotten]
            for source in _sources(again):
                await self._client.script_load(source)
            for place, answer in zip(forgotten, await self._try(again), strict=True):
                answers[place] = answer
        return answers

    async def _try(self, calls: Sequence[ScriptCall]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipe:
            for call in calls:
                pipe.execute_command(*call.words())
            return await pipe.execute(raise_on_error=False)


def _forgotten(answers: Sequence[Any]) -> list[int]:
    """Which calls Redis refused because it does not know their script, by place."""
    return [place for place, answer in enumerate(answers) if isinstance(answer, NoScriptError)]


def _sources(calls: Sequence[ScriptCall]) -> set[str]:
    return {call.script.script for call in calls}


def _send(client: redis.Redis, calls: Sequence[ScriptCall]) -> list[Any]:
    with client.pipeline(transaction=False) as pipe:
        for call in calls:
            pipe.execute_command(*call.words())  # type: ignore[no-untyped-call]
        return pipe.execute(raise_on_error=False)
