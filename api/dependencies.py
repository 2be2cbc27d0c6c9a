"""What a route may ask for: the parts of the running API, and who calls."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from api.auth.key_store import Authenticator, is_bearer
from api.jobs.service import RerankService
from api.metrics import Metrics
from api.pool_monitor import PoolMonitor
from api.settings import ApiSettings


@dataclass(frozen=True, slots=True)
class AppState:
    """Everything that lives as long as the API does."""

    settings: ApiSettings
    service: RerankService
    pools: PoolMonitor
    metrics: Metrics
    authenticator: Authenticator


async def get_app_state(request: Request) -> AppState:
    # async, though it waits for nothing: FastAPI would run it in a thread otherwise, for every request.
    parts: AppState = request.app.state.parts
    return parts


AppStateDep = Annotated[AppState, Depends(get_app_state)]


async def get_owner(request: Request, parts: AppStateDep) -> str:
    """The id of the caller's key. Raises Unauthorized."""
    headers = request.headers
    authorization, key = headers.get("authorization"), headers.get("api-key") or headers.get("x-api-key")
    if key is not None and (authorization is None or not is_bearer(authorization)):
        authorization = f"Bearer {key}"
    return await parts.authenticator.owner(authorization)


OwnerDep = Annotated[str, Depends(get_owner)]
