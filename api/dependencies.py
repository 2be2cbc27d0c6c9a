"""What a route may ask for: the parts of the running API, and who calls."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from api.auth.key_store import Authenticator, is_bearer
from api.jobs.service import RerankService
from api.metrics import Metrics
from api.pool_monitor import PoolWatch
from api.settings import ApiSettings


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that lives as long as the API does."""

    settings: ApiSettings
    service: RerankService
    pools: PoolWatch
    metrics: Metrics
    authenticator: Authenticator


async def get_parts(request: Request) -> Parts:
    # async, though it waits for nothing: FastAPI would run it in a thread otherwise, for every request.
    parts: Parts = request.app.state.parts
    return parts


PartsDep = Annotated[Parts, Depends(get_parts)]


async def get_owner(request: Request, parts: PartsDep) -> str:
    """The id of the caller's key. Raises Unauthorized."""
    headers = request.headers
    authorization, key = headers.get("authorization"), headers.get("api-key") or headers.get("x-api-key")
    if key is not None and (authorization is None or not is_bearer(authorization)):
        authorization = f"Bearer {key}"
    return await parts.authenticator.owner(authorization)


OwnerDep = Annotated[str, Depends(get_owner)]
