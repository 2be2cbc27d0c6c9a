"""Who calls: like other routes, and with the key alone in Authorization, without `Bearer`."""

from typing import Annotated

from fastapi import Depends, Request

from api.auth.key_store import Scope
from api.dependencies import AppStateDep, get_owner


async def _require_rerank(request: Request, state: AppStateDep) -> str:
    return await get_owner(request, state, Scope.RERANK, bare=True)


async def _require_jobs(request: Request, state: AppStateDep) -> str:
    return await get_owner(request, state, Scope.JOBS, bare=True)


RerankOwner = Annotated[str, Depends(_require_rerank)]
JobOwner = Annotated[str, Depends(_require_jobs)]
