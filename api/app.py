"""Builds the FastAPI application: state, background tasks, middleware, routes and error handlers.

Connects to nothing before the application starts.
"""

import asyncio
import gc
import logging
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Protocol

from fastapi import FastAPI, Request, Response
from fastapi_offline import FastAPIOffline
from prometheus_client import CollectorRegistry
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.routing import Match, Route

from api import composition
from api.background_tasks import cancel_and_wait
from api.batches.descriptions import describe_any_batch
from api.batches.open_batches import OpenBatches
from api.batches.results import ResultReader
from api.batches.runner_process import RunnerProcess
from api.batches.service import BatchService
from api.dependencies import AppState
from api.dialects.registry import Family, dialect_for_path, family
from api.files.service import FileLimits, FileService
from api.files.sweeper import Sweeper
from api.http.error_responses import headers_of, status_of
from api.http.middleware import RequestContextMiddleware
from api.http.responses import json_response
from api.jobs.followers import JobFollower
from api.jobs.reconciler import Reconciler
from api.metrics.counts import ServiceCounts
from api.metrics.exposition import Exposition
from api.metrics.readings import StoreReader
from api.openapi.document import describe_api
from api.processes.group import ProcessGroup
from api.routes import (
    admin,
    async_rerank,
    batches,
    bulk_jobs,
    compatibility,
    files,
    job_events,
    jobs,
    models,
    operations,
    pools,
    predictions,
    rerank,
    runpod,
    webhooks,
)
from api.settings import ApiSettings
from api.webhooks.event_bodies import EventBodies
from api.webhooks.runner import DeliveryRunner
from api.webhooks.sender import WebhookSender
from api.webhooks.service import WebhookService
from shared.errors import InternalError, InvalidRequest, MethodNotAllowed, RerankqError, RouteNotFound
from shared.ledger.file_ledger import FileLedger
from shared.ledger.open_batch_ledger import OpenBatchLedger
from shared.models import ModelRegistry
from shared.tracing import set_up_tracing, shut_down_tracing
from shared.webhooks import WebhookForm

logger = logging.getLogger("api")

_CLIENT_CLOSED_REQUEST = 499
_EXPOSED_HEADERS = ("Location", "Preference-Applied", "Retry-After", "Server-Timing", "X-Request-Id")
"""Response headers that web pages of allowed origins may read."""


def create_app(
    settings: ApiSettings, registry: ModelRegistry, *, keys_required: bool = False, group: ProcessGroup | None = None
) -> FastAPI:
    """The ASGI application. `keys_required`: reject requests without a key even when no key exists.

    `group`: the processes that serve the application; None: only this one.
    """
    group = group or ProcessGroup()
    # FastAPI's own documentation pages load their assets from the internet.
    app = FastAPIOffline(
        title="rerankq",
        summary="A queue-driven rerank service: wait for the result, or get a job.",
        lifespan=_make_lifespan(settings, registry, group, keys_required),
        redirect_slashes=False,
    )
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=_EXPOSED_HEADERS,
        )
    app.state.root = family(settings.root_dialect)
    _add_routes(app, app.state.root)
    registry_of_counts = CollectorRegistry()
    counts = ServiceCounts(registry_of_counts)
    app.state.counts, app.state.exposition = counts, Exposition(registry_of_counts, group, counts.exemplars)
    app.add_middleware(RequestContextMiddleware, render_exception=_render_exception, observe=counts.response)
    app.openapi = partial(describe_api, app, app.state.root)  # type: ignore[method-assign]
    app.add_exception_handler(RerankqError, _handle_rerankq_error)
    app.add_exception_handler(HTTPException, _handle_http_exception)
    app.add_exception_handler(ClientDisconnect, _handle_disconnect)
    return app


class _Background(Protocol):
    """A background task of the application."""

    async def run(self) -> None: ...


def _make_lifespan(
    settings: ApiSettings, registry: ModelRegistry, group: ProcessGroup, keys_required: bool
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        set_up_tracing(settings.tracing, "api")
        counts: ServiceCounts = app.state.counts
        parts = composition.build(settings, registry, keys_required=keys_required, counts=counts)
        models = [spec.name for spec in registry.specs]
        starts_runner = settings.batch_runner == "auto"
        runner = RunnerProcess(settings, parts.batches, group.runner_lock) if starts_runner else None
        files = FileService(
            FileLedger(parts.client),
            parts.batches,
            parts.payloads,
            parts.names,
            FileLimits(settings.max_file_bytes, settings.file_seconds),
        )
        batch_service = BatchService(
            parts.batches,
            files,
            parts.payloads,
            parts.names,
            registry,
            app.state.root,
            terms_of=parts.authenticator.terms_of,
            on_created=runner.wake if runner else lambda: None,
            retain_seconds=settings.file_seconds,
            webhooks=parts.subscriptions,
        )
        sender = WebhookSender(parts.webhook_rules)
        app.state.app_state = AppState(
            settings=settings,
            service=parts.service,
            queue=parts.queue,
            pools=parts.pools,
            counts=counts,
            exposition=app.state.exposition,
            readings=StoreReader(parts.client, parts.pools, parts.batches, parts.deliveries),
            authenticator=parts.authenticator,
            files=files,
            batches=batch_service,
            open_batches=OpenBatches(OpenBatchLedger(parts.client, settings.max_body_bytes), batch_service),
            webhooks=WebhookService(parts.endpoints, parts.deliveries, sender, parts.webhook_rules),
            results=ResultReader(parts.batches, parts.payloads),
            followers=JobFollower(parts.service, parts.ledger, parts.completions, parts.submissions.admission),
        )
        await parts.pools.refresh()
        # The objects that exist now live until shutdown: exempt them from garbage collection, which delays responses.
        gc.freeze()
        running: list[_Background] = [
            parts.completions,
            parts.pools,
            Reconciler(parts.client, parts.ledger, parts.messages, models, counts.reconciler_round),
            Sweeper(parts.client, parts.payloads, parts.names),
            DeliveryRunner(parts.deliveries, parts.endpoints, _event_bodies(parts, app.state.app_state), sender),
            *([runner] if runner else []),
        ]
        background = [asyncio.create_task(part.run()) for part in running]
        for task in background:
            task.add_done_callback(_stop_process_on_failure)
        try:
            yield
        finally:
            await cancel_and_wait(background)
            await sender.aclose()
            await parts.close()
            await asyncio.to_thread(shut_down_tracing)

    return lifespan


def _event_bodies(parts: composition.Parts, state: AppState) -> EventBodies:
    bodies = EventBodies(
        parts.ledger,
        parts.batches,
        describe_job=jobs.describe,
        describe_batch=lambda record: describe_any_batch(record, time.time()),
    )
    bodies.register(WebhookForm.RUNPOD, runpod.body_builder(state))
    return bodies


def _add_routes(app: FastAPI, root: Family) -> None:
    for router in (
        rerank.make_router(root),
        async_rerank.make_router(root),
        jobs.router,
        bulk_jobs.router,
        runpod.router,
        job_events.router,
        predictions.router,
        files.router,
        batches.router,
        webhooks.router,
        admin.router,
        models.router,
        pools.router,
        operations.router,
        compatibility.make_router(root),
    ):
        app.include_router(router)


def _stop_process_on_failure(task: "asyncio.Task[None]") -> None:
    """Stop the process when a background task fails: without the task, every request would time out."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.critical("a background task failed, the API stops", exc_info=error)
        signal.raise_signal(signal.SIGTERM)


def _render(request: Request, error: RerankqError) -> Response:
    """The error in the dialect of the request's path."""
    dialect = dialect_for_path(request.url.path, request.app.state.root)
    body = dialect.render_error(error, request.state.request_id)
    return json_response(body, dialect.status_of(error), headers_of(error))


async def _handle_rerankq_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RerankqError)
    if status_of(error) == 500:
        logger.error("a request failed", extra={"error": error.message, "code": error.code})
    return _render(request, error)


async def _handle_http_exception(request: Request, error: Exception) -> Response:
    """Errors that the framework raises: unknown paths and methods."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return _render(request, RouteNotFound(f"there is nothing at {request.url.path[:200]}"))
    if error.status_code == 405:
        response = _render(request, MethodNotAllowed(f"{request.method} is not allowed here"))
        response.headers["Allow"] = ", ".join(sorted(_allowed_methods(request)))
        return response
    return _render(request, InvalidRequest(str(error.detail)))


def _allowed_methods(request: Request) -> set[str]:
    """The methods of all routes that match the path. Starlette's own Allow header covers the first route only."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    matching = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    methods = {method for route in matching for method in route.methods or ()}
    return methods | {"HEAD"} if "GET" in methods else methods


async def _handle_disconnect(request: Request, _: Exception) -> Response:
    # The client does not receive this response. Its status goes to the access log and the metrics.
    logger.info("the client disconnected")
    return Response(status_code=_CLIENT_CLOSED_REQUEST)


def _render_exception(request: Request) -> Response:
    request_id = request.state.request_id
    message = f"internal error; the server log has the details under request id {request_id}"
    return _render(request, InternalError(message))
