"""Reads the bodies that create batches: OpenAI's, Voyage's form of it, and jobs of many requests."""

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from api.dialects.request_fields import invalid, without_nulls
from api.webhooks.targets import read_target
from shared.ledger.batch_record import Wake
from shared.webhooks import WebhookTarget

MAX_SECONDS = 30 * 86_400.0
MAX_METADATA = 16
_WINDOW = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def seconds_of(window: str) -> float:
    """The seconds of a window like `24h`. Raises PydanticCustomError."""
    match = _WINDOW.fullmatch(window.strip().lower())
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 0 < seconds <= MAX_SECONDS:
        raise PydanticCustomError("window", "must be a time from 1s to 30d, such as 30m, 24h or 7d")
    return float(seconds)


def _check_window(window: str) -> str:
    seconds_of(window)
    return window


def _read_deadline(value: Any) -> Any:
    """Accept a number of seconds as well as a window."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return f"{math.ceil(value)}s" if 0 < value <= MAX_SECONDS else ""


def _read_webhook(value: Any) -> WebhookTarget | None:
    """A target that was read already is accepted as it is."""
    return value if value is None or isinstance(value, WebhookTarget) else read_target(value)


Webhook = Annotated[WebhookTarget | None, BeforeValidator(_read_webhook)]
Window = Annotated[str, AfterValidator(_check_window)]
Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=MAX_METADATA)
]


class OutputExpiry(BaseModel):
    """The lifetime of the result files, from the batch's end."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=60, le=int(MAX_SECONDS))]


class BatchCreation(BaseModel):
    """The body of `POST /v1/batches`. `request_params` are fields of every request, as in Voyage's API."""

    model_config = ConfigDict(extra="ignore")

    input_file_id: Annotated[str, Field(min_length=1)]
    endpoint: str
    completion_window: Window = "24h"
    metadata: Metadata | None = None
    request_params: dict[str, Any] | None = None
    output_expires_after: OutputExpiry | None = None
    webhook: Webhook = None


class BulkJobCreation(BaseModel):
    """The body of `POST /v1/jobs`. `defaults` are fields of every request; `deadline` is a window, or in seconds."""

    model_config = ConfigDict(extra="ignore")

    model: str | None = None
    requests: Annotated[list[dict[str, Any]], Field(min_length=1)]
    defaults: dict[str, Any] | None = None
    deadline: Annotated[Window, BeforeValidator(_read_deadline)] = "24h"
    wake: Wake = Wake.NOW
    metadata: Metadata | None = None
    webhook: Webhook = None

    @property
    def all_defaults(self) -> dict[str, Any] | None:
        """`defaults` with the model."""
        model = {} if self.model is None else {"model": self.model}
        return (self.defaults or {}) | model or None


def read_batch(body: Mapping[str, Any]) -> BatchCreation:
    """Raises InvalidRequest, which names the field."""
    try:
        return BatchCreation.model_validate(without_nulls(body))
    except ValidationError as error:
        raise invalid(error) from error


def read_bulk_job(body: Mapping[str, Any]) -> BulkJobCreation:
    """Raises InvalidRequest, which names the field."""
    try:
        return BulkJobCreation.model_validate(without_nulls(body))
    except ValidationError as error:
        raise invalid(error) from error
