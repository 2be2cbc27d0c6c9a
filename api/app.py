"""Puts the API together: its parts, its routes, its error handling. Nothing is connected before the app starts."""

import asyncio
import gc
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI, Request, Response
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.routing import Match, Route

from api.auth.key_store import Authenticator, KeyStore
from api.background_tasks import cancel_and_wait
from api.dependencies import AppState
from api.dialects.registry import dialect_for_path, family
from api.http.error_responses import headers_of, status_of
from api.http.middleware import RequestContextMiddleware
from api.http.request_body import json_response
from api.jobs.completions import CompletionListener
from api.jobs.reconciler import Reconciler
from api.jobs.service import RerankService
from api.jobs.submissions import Limits, SubmissionBuilder
from api.metrics import Metrics
from api.openapi.document import describe_api
from api.pool_monitor import PoolMonitor
from api.routes import compatibility, jobs, models, operations, rerank
from api.routes import pools as pool_routes
from api.settings import ApiSettings
from shared.errors import InternalError, InvalidRequest, MethodNotAllowed, RerankqError, RouteNotFound
from shared.ledger.job_ledger import JobLedger, Lifetimes
from shared.models import ModelRegistry
from shared.queue.celery_app import make_celery
from shared.queue.messages import MessageBuilder
from shared.score_cache import ScoreReader
from shared.store.client import connect_async

logger = logging.getLogger("api")

_CLIENT_CLOSED_REQUEST = 499
_READABLE = ("Location", "Preference-Applied", "Retry-After", "Server-Timing", "X-Request-Id")
"""What a page may read of an answer's headers, beside what every page may."""


def create_app(settings: ApiSettings, registry: ModelRegistry, *, keys_required: bool = False) -> FastAPI:
    """The ASGI application. `keys_required`: refuse callers without a key even when none is configured."""

    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        client = connect_async(settings.redis_url)
        ledger = JobLedger(client, Lifetimes(result=settings.result_seconds))
        replies = CompletionListener(client, ledger)
        names = [spec.name for spec in registry.specs]
        pools = PoolMonitor(client, registry.specs)
        messages = MessageBuilder(make_celery(settings.redis_url))
        reconciler = Reconciler(client, ledger, messages, names)
        preparation = SubmissionBuilder(
            pools=pools,
            models=registry,
            messages=messages,
            limits=Limits(
                max_documents=settings.max_documents,
                wait_seconds=settings.wait_seconds,
                job_deadline_seconds=settings.job_deadline_seconds,
                shard_tokens=settings.shard_tokens,
                batch_window=settings.batch_window,
            ),
            scores=ScoreReader(client) if settings.score_cache else None,
        )
        app.state.parts = AppState(
            settings=settings,
            service=RerankService(ledger=ledger, replies=replies, preparation=preparation),
            pools=pools,
            metrics=metrics,
            authenticator=Authenticator(KeyStore(client), always_required=keys_required),
        )
        await pools.refresh()
        # What is there by now stays: the collector need not go through it again and again, amid somebody's answer.
        gc.freeze()
        background = [asyncio.create_task(part.run()) for part in (replies, pools, reconciler)]
        for task in background:
            task.add_done_callback(_end_with)
        try:
            yield
        finally:
            await cancel_and_wait(background)
            await client.aclose()

    # Not FastAPI's own pages, which fetch what shows them from elsewhere.
    app = FastAPIOffline(
        title="rerankq",
        summary="A rerank service that queues: wait for the result, or take a job.",
        lifespan=lifespan,
        redirect_slashes=False,
    )
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=_READABLE,
        )
    app.add_middleware(RequestContextMiddleware, render_fault=_render_fault, observe=metrics.observe)
    app.state.root = family(settings.root_dialect)
    for router in (
        rerank.make_router(app.state.root),
        jobs.router,
        models.router,
        pool_routes.router,
        operations.router,
        compatibility.make_router(app.state.root),
    ):
        app.include_router(router)
    app.openapi = partial(describe_api, app, app.state.root)  # type: ignore[method-assign]
    app.add_exception_handler(RerankqError, _domain_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _client_left)
    return app


def _end_with(task: "asyncio.Task[None]") -> None:
    """End the process when a background task fails: without it every caller would wait in vain."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.critical("a background task failed, the API ends", exc_info=error)
        signal.raise_signal(signal.SIGTERM)


def _render(request: Request, error: RerankqError) -> Response:
    """The error in the dialect of the path it happened on."""
    dialect = dialect_for_path(request.url.path, request.app.state.root)
    body = dialect.render_error(error, request.state.request_id)
    return json_response(body, dialect.status_of(error), headers_of(error))


async def _domain_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RerankqError)
    if status_of(error) == 500:
        logger.error("request %s: %s", request.state.request_id, error)
    return _render(request, error)


async def _http_error(request: Request, error: Exception) -> Response:
    """What the framework itself refuses: unknown paths and methods."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return _render(request, RouteNotFound(f"there is nothing at {request.url.path[:200]}"))
    if error.status_code == 405:
        response = _render(request, MethodNotAllowed(f"{request.method} is not allowed here"))
        response.headers["Allow"] = ", ".join(sorted(_methods(request)))
        return response
    return _render(request, InvalidRequest(str(error.detail)))


def _methods(request: Request) -> set[str]:
    """What is allowed on a path. The framework itself names the methods of the first route alone."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    here = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    methods = {method for route in here for method in route.methods or ()}
    return methods | {"HEAD"} if "GET" in methods else methods


async def _client_left(request: Request, _: Exception) -> Response:
    logger.info("request %s: the caller left, its job was canceled", request.state.request_id)
    return Response(status_code=_CLIENT_CLOSED_REQUEST)


def _render_fault(request: Request) -> Response:
    request_id = request.state.request_id
    return _render(request, InternalError(f"a fault on our side; the log has it under the request id {request_id}"))
