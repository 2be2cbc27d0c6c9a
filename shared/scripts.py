"""The ledger's scripts as Redis gets them, and the two or three names that every one of them is called with."""

from pathlib import Path

from shared import keys

_LUA = Path(__file__).parent / "lua"


def script_source(name: str) -> str:
    """The text of one operation, the common part in front."""
    return (_LUA / "_common.lua").read_text() + (_LUA / f"{name}.lua").read_text()


def job_script_keys(job_id: str, model: str, *more: str) -> list[str]:
    """The keys of a script that works on one job."""
    return [keys.job(job_id), keys.outstanding(model), keys.deadlines(model), *more]
