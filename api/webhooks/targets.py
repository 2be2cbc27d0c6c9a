"""Reads the `webhook` field of a request's body: a URL, or an object with `url`, `events` and `secret`."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from api.webhooks.signatures import parse_secret
from shared.errors import InvalidRequest
from shared.webhooks import WebhookEvent, WebhookTarget

MAX_URL_CHARACTERS = 2048

Url = Annotated[str, Field(min_length=1, max_length=MAX_URL_CHARACTERS)]


class _Webhook(BaseModel):
    model_config = ConfigDict(extra="ignore")

    url: Url
    events: list[WebhookEvent] | None = None
    secret: str | None = None


def read_target(given: Any, param: str = "webhook") -> WebhookTarget:
    """The target in a `webhook` field. Raises InvalidRequest naming the field.

    Whether the URL may be called is checked later: see Subscriptions.
    """
    if isinstance(given, str):
        given = {"url": given}
    if not isinstance(given, dict):
        raise InvalidRequest(f"{param} must be a URL or an object with url, events and secret", param=param)
    try:
        read = _Webhook.model_validate(given)
    except ValidationError as error:
        raise invalid_webhook(error, f"{param}.") from error
    if read.secret is not None:
        parse_secret(read.secret, f"{param}.secret")
    return WebhookTarget(read.url, tuple(dict.fromkeys(read.events or ())), read.secret)


def invalid_webhook(error: ValidationError, within: str = "") -> InvalidRequest:
    """The first validation error as one sentence that names the field."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = within + str(first["loc"][0])
    return InvalidRequest(f"{field}: {first['msg'][0].lower()}{first['msg'][1:]}", param=field)
