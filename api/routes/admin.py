"""Routes for operators: the jobs of all keys, and the dead letters. Both need a key with the scope admin."""

from typing import Any

from fastapi import APIRouter, Request, Response

from api.dependencies import AdminDep, AppStateDep
from api.http.responses import json_response
from api.openapi.schemas import EXAMPLE_DEAD_LETTER, EXAMPLE_JOB_DONE, EXAMPLE_JOBS, DeadLetters, Jobs, response_doc
from api.routes.job_queries import INVALID_PARAMETER, PARAMETERS, read_limit, read_query
from api.routes.jobs import describe_any, describe_page
from shared.ledger.job_record import DeadLetter

router = APIRouter(prefix="/v1/admin", tags=["admin"])

_Responses = dict[int | str, dict[str, Any]]
_PAGE = EXAMPLE_JOBS | {"data": [EXAMPLE_JOB_DONE | {"key": "1f0a9c3b7d2e"}]}
_JOBS: _Responses = {200: response_doc(Jobs, _PAGE, "A page of jobs."), 400: INVALID_PARAMETER}
_LETTERS: _Responses = {
    200: response_doc(DeadLetters, {"object": "list", "data": [EXAMPLE_DEAD_LETTER]}, "The newest dead letters."),
    400: INVALID_PARAMETER,
}
_LIMIT = [parameter for parameter in PARAMETERS if parameter["name"] == "limit"]


@router.get("/jobs", responses=_JOBS, openapi_extra={"parameters": PARAMETERS})
async def list_all_jobs(request: Request, state: AppStateDep, _: AdminDep) -> Response:
    """The jobs of all keys, newest first. `key` is the id of a job's API key."""
    wanted, limit, after = read_query(request.query_params)
    records, position = await state.service.jobs(None, wanted, limit, after)
    return json_response(describe_page([describe_any(record) | {"key": record.owner} for record in records], position))


@router.get("/dead-letters", responses=_LETTERS, openapi_extra={"parameters": _LIMIT})
async def list_dead_letters(request: Request, state: AppStateDep, _: AdminDep) -> Response:
    """Shards that exceeded their retry budget, newest first. `python -m worker dead-letters` retries them."""
    letters = await state.service.dead_letters(read_limit(request.query_params.get("limit")))
    return json_response({"object": "list", "data": [_describe(letter) for letter in letters]})


def _describe(letter: DeadLetter) -> dict[str, Any]:
    return {
        "job": letter.job_id,
        "shard": letter.shard,
        "model": letter.model,
        "error": {"type": letter.failure.code, "message": letter.failure.message},
        "crashes": letter.crashes,
        "retries": letter.retries,
        "failed": letter.at_ms / 1000,
    }
