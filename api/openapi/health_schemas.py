"""Schemas of /health and /ready."""

from typing import Literal

from api.dialects.schemas import ResponseSchema
from api.openapi.schemas import ModelWorkers


class Health(ResponseSchema):
    """The process answers."""

    status: Literal["ok"]


class Readiness(ResponseSchema):
    """Whether requests are accepted now."""

    status: Literal["ready", "not ready"]
    store: Literal["reachable", "unreachable"]
    problems: list[str]
    models: dict[str, ModelWorkers]
