"""FastAPI dependencies of the routes: the application's state and the owner of a request."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from api.auth.authenticator import Authenticator, is_bearer
from api.auth.key_store import Scope
from api.batches.open_batches import OpenBatches
from api.batches.results import ResultReader
from api.batches.service import BatchService
from api.files.service import FileService
from api.jobs.followers import JobFollower
from api.jobs.queue import JobQueue
from api.jobs.service import RerankService
from api.metrics.counts import ServiceCounts
from api.metrics.exposition import Exposition
from api.metrics.readings import StoreReader
from api.pool_monitor import PoolMonitor
from api.settings import ApiSettings
from api.webhooks.service import WebhookService


@dataclass(frozen=True, slots=True)
class AppState:
    """The objects that live as long as the application."""

    settings: ApiSettings
    service: RerankService
    queue: JobQueue
    pools: PoolMonitor
    counts: ServiceCounts
    exposition: Exposition
    readings: StoreReader
    authenticator: Authenticator
    files: FileService
    batches: BatchService
    open_batches: OpenBatches
    results: ResultReader
    webhooks: WebhookService
    followers: JobFollower


async def get_app_state(request: Request) -> AppState:
    # FastAPI would run a plain function in a thread for every request.
    state: AppState = request.app.state.app_state
    return state


AppStateDep = Annotated[AppState, Depends(get_app_state)]


async def get_owner(request: Request, state: AppState, scope: Scope | None, *, bare: bool = False) -> str:
    """The id of the client's API key, from Authorization, Api-Key or X-Api-Key. Raises Unauthorized or Forbidden.

    `bare`: Authorization may be the key alone, without a scheme.
    """
    headers = request.headers
    authorization, key = headers.get("authorization"), headers.get("api-key") or headers.get("x-api-key")
    if key is not None and (authorization is None or not is_bearer(authorization)):
        authorization = f"Bearer {key}"
    elif bare and authorization is not None and " " not in authorization.strip():
        authorization = f"Bearer {authorization}"
    return await state.authenticator.owner(authorization, scope)


async def _require_any_key(request: Request, state: AppStateDep) -> str:
    return await get_owner(request, state, None)


async def _require_rerank(request: Request, state: AppStateDep) -> str:
    return await get_owner(request, state, Scope.RERANK)


async def _require_jobs(request: Request, state: AppStateDep) -> str:
    return await get_owner(request, state, Scope.JOBS)


async def _require_admin(request: Request, state: AppStateDep) -> str:
    return await get_owner(request, state, Scope.ADMIN)


OwnerDep = Annotated[str, Depends(_require_any_key)]
RerankOwnerDep = Annotated[str, Depends(_require_rerank)]
JobOwnerDep = Annotated[str, Depends(_require_jobs)]
AdminDep = Annotated[str, Depends(_require_admin)]
