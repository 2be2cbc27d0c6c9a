"""The ledger's scripts as Redis gets them, and the two or three names that every one of them is called with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from redis.exceptions import NoScriptError

from shared import keys

_LUA = Path(__file__).parent / "lua"


def script_source(name: str) -> str:
    """The text of one operation, the common part in front."""
    return (_LUA / "_common.lua").read_text() + (_LUA / f"{name}.lua").read_text()


def job_script_keys(job_id: str, model: str, *more: str) -> list[str]:
    """The keys of a script that works on one job."""
    return [keys.job(job_id), keys.outstanding(model), keys.deadlines(model), *more]


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a registered script."""

    script: Any
    keys: Sequence[str]
    args: Sequence[Any]

    def words(self) -> tuple[Any, ...]:
        return ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.args)


def call_all(client: redis.Redis, calls: Sequence[Call]) -> list[Any]:
    """Run script calls in one round trip; answers them in order. Raises the first error.

    A pipeline of redis-py would ask before each one whether Redis knows its scripts. Here a script that Redis has
    forgotten is loaded and called again; the other calls have run by then, and are not repeated.
    """
    answers = _send(client, calls)
    forgotten = [place for place, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
    if forgotten:
        again = [calls[place] for place in forgotten]
        for source in {call.script.script for call in again}:
            client.script_load(source)
        for place, answer in zip(forgotten, _send(client, again), strict=True):
            answers[place] = answer
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


def _send(client: redis.Redis, calls: Sequence[Call]) -> list[Any]:
    with client.pipeline(transaction=False) as pipe:
        for call in calls:
            pipe.execute_command(*call.words())  # type: ignore[no-untyped-call]
        return pipe.execute(raise_on_error=False)
