"""Webhook routes: endpoints of a key, their secrets, tests, and deliveries."""

from typing import Any

from fastapi import APIRouter, Request, Response

from api.dependencies import AppStateDep, JobOwnerDep
from api.http.request_body import read_json_object
from api.http.responses import json_response
from api.openapi.batch_schemas import request_doc
from api.openapi.schemas import response_doc
from api.openapi.webhook_schemas import (
    EXAMPLE_DEFAULT_SECRET,
    EXAMPLE_DELIVERIES,
    EXAMPLE_DELIVERY,
    EXAMPLE_ENDPOINT,
    EXAMPLE_NEW_ENDPOINT,
    EXAMPLE_SECRET_ENDPOINT,
    EXAMPLE_TEST,
    DefaultSecret,
    Deliveries,
    Delivery,
    DeliveryTest,
    Endpoint,
    Endpoints,
    EndpointWithSecret,
    NewEndpoint,
)
from api.routes.job_queries import INVALID_PARAMETER, PARAMETERS, read_limit, read_position
from api.routes.jobs import describe_page
from api.webhooks.descriptions import describe_delivery, describe_endpoint
from shared.errors import InvalidRequest
from shared.ledger.delivery_record import DEFAULT_ENDPOINT, DeliveryStatus

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])

_Responses = dict[int | str, dict[str, Any]]
_NOT_FOUND = {"description": "There is no such webhook or delivery, or it belongs to another key."}
_CREATE: _Responses = {
    201: response_doc(
        EndpointWithSecret, EXAMPLE_SECRET_ENDPOINT, "The webhook, with its secret: it is not shown again."
    ),
    400: {"description": "A field is invalid; the message names it."},
}
_LIST: _Responses = {200: response_doc(Endpoints, {"object": "list", "data": [EXAMPLE_ENDPOINT]}, "All webhooks.")}
_READ: _Responses = {200: response_doc(Endpoint, EXAMPLE_ENDPOINT, "The webhook."), 404: _NOT_FOUND}
_ROTATE: _Responses = {
    200: response_doc(EndpointWithSecret, EXAMPLE_SECRET_ENDPOINT, "The webhook, with its new secret."),
    404: _NOT_FOUND,
}
_DEFAULT: _Responses = {200: response_doc(DefaultSecret, EXAMPLE_DEFAULT_SECRET, "The secret.")}
_TEST: _Responses = {200: response_doc(DeliveryTest, EXAMPLE_TEST, "The outcome."), 404: _NOT_FOUND}
_PAGE: _Responses = {
    200: response_doc(Deliveries, EXAMPLE_DELIVERIES, "A page of deliveries."),
    400: INVALID_PARAMETER,
    404: _NOT_FOUND,
}
_REDELIVER: _Responses = {202: response_doc(Delivery, EXAMPLE_DELIVERY, "The delivery."), 404: _NOT_FOUND}
_STATUSES = ", ".join(DeliveryStatus)
_PARAMETERS = [
    {
        "name": "status",
        "in": "query",
        "required": False,
        "description": f"Only deliveries with one of these statuses, separated by commas: {_STATUSES}.",
        "schema": {"type": "string"},
    },
    *(parameter for parameter in PARAMETERS if parameter["name"] in ("limit", "after")),
]


@router.post("", status_code=201, responses=_CREATE, openapi_extra=request_doc(NewEndpoint, EXAMPLE_NEW_ENDPOINT))
async def create_webhook(request: Request, state: AppStateDep, owner: JobOwnerDep) -> Response:
    """Report the ends of this key's jobs and batches to a URL."""
    body = dict(await read_json_object(request, state.settings.max_body_bytes))
    endpoint = await state.webhooks.create(body, owner)
    return json_response(describe_endpoint(endpoint, with_secret=True), 201)


@router.get("", responses=_LIST)
async def list_webhooks(state: AppStateDep, owner: JobOwnerDep) -> Response:
    """The caller's webhooks, oldest first."""
    endpoints = await state.webhooks.endpoints(owner)
    return json_response({"object": "list", "data": [describe_endpoint(endpoint) for endpoint in endpoints]})


@router.get(f"/{DEFAULT_ENDPOINT}/secret", responses=_DEFAULT)
async def read_default_secret(state: AppStateDep, owner: JobOwnerDep) -> Response:
    """The secret that signs deliveries to URLs that were given with one request."""
    return json_response({"key": await state.webhooks.default_secret(owner)})


@router.post(f"/{DEFAULT_ENDPOINT}/rotate", responses=_DEFAULT)
async def rotate_default_secret(state: AppStateDep, owner: JobOwnerDep) -> Response:
    """Replace the default secret. The old one signs, too, for a day."""
    return json_response({"key": (await state.webhooks.rotate(DEFAULT_ENDPOINT, owner)).secret})


@router.get("/{webhook_id}", responses=_READ)
async def read_webhook(webhook_id: str, state: AppStateDep, owner: JobOwnerDep) -> Response:
    """A webhook, without its secret."""
    return json_response(describe_endpoint(await state.webhooks.read(webhook_id, owner)))


@router.delete("/{webhook_id}", status_code=204, responses={404: _NOT_FOUND})
async def delete_webhook(webhook_id: str, state: AppStateDep, owner: JobOwnerDep) -> Response:
    """Delete a webhook. What was not delivered yet fails."""
    await state.webhooks.delete(webhook_id, owner)
    return Response(status_code=204)


@router.post("/{webhook_id}/test", responses=_TEST)
async def test_webhook(webhook_id: str, state: AppStateDep, owner: JobOwnerDep) -> Response:
    """Send a `webhook.test` event now, once."""
    message_id, outcome = await state.webhooks.test(webhook_id, owner)
    return json_response(
        {
            "id": message_id,
            "object": "webhook.test",
            "delivered": outcome.delivered,
            "response_status": outcome.status,
            "error": outcome.error,
            "seconds": round(outcome.seconds, 3),
        }
    )


@router.post("/{webhook_id}/rotate", responses=_ROTATE)
async def rotate_webhook(webhook_id: str, state: AppStateDep, owner: JobOwnerDep) -> Response:
    """Give a webhook a new secret. The old one signs, too, for a day."""
    return json_response(describe_endpoint(await state.webhooks.rotate(webhook_id, owner), with_secret=True))


@router.get("/{webhook_id}/deliveries", responses=_PAGE, openapi_extra={"parameters": _PARAMETERS})
async def list_deliveries(webhook_id: str, request: Request, state: AppStateDep, owner: JobOwnerDep) -> Response:
    """The deliveries to a webhook, newest first; `default` has those to URLs that were given with one request."""
    query = request.query_params
    limit, after = read_limit(query.get("limit")), read_position(query.get("after"))
    statuses = _read_statuses(query.get("status", ""))
    found, position = await state.webhooks.deliveries(webhook_id, owner, limit, after, statuses)
    return json_response(describe_page([describe_delivery(record) for record in found], position))


@router.post("/{webhook_id}/deliveries/{delivery_id}/redeliver", status_code=202, responses=_REDELIVER)
async def redeliver(webhook_id: str, delivery_id: str, state: AppStateDep, owner: JobOwnerDep) -> Response:
    """Send a delivery again, with the same id and body."""
    return json_response(describe_delivery(await state.webhooks.redeliver(webhook_id, delivery_id, owner)), 202)


def _read_statuses(text: str) -> list[DeliveryStatus]:
    try:
        return [DeliveryStatus(name.strip()) for name in text.split(",") if name.strip()]
    except ValueError:
        raise InvalidRequest(f"status must be one or more of {_STATUSES}", param="status") from None
