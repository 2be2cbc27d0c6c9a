"""Builds the FastAPI application: state, background tasks, middleware, routes and error handlers.

Connects to nothing before the application starts.
"""

import asyncio
import gc
import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

from fastapi import FastAPI, Request, Response
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.routing import Match, Route

from api.auth.authenticator import Authenticator
from api.auth.key_file import KeyFile
from api.auth.key_store import KeyStore
from api.background_tasks import cancel_and_wait
from api.dependencies import AppState
from api.dialects.registry import Family, dialect_for_path, family
from api.http.error_responses import headers_of, status_of
from api.http.middleware import RequestContextMiddleware
from api.http.responses import json_response
from api.jobs.admission import Admission, AdmissionLimits
from api.jobs.completions import CompletionListener
from api.jobs.reconciler import Reconciler
from api.jobs.service import RerankService
from api.jobs.submissions import Limits, SubmissionBuilder
from api.metrics import Metrics
from api.openapi.document import describe_api
from api.pool_monitor import PoolMonitor
from api.routes import admin, compatibility, jobs, models, operations, pools, rerank
from api.settings import ApiSettings
from shared.errors import InternalError, InvalidRequest, MethodNotAllowed, RerankqError, RouteNotFound
from shared.ledger.job_index import JobIndex
from shared.ledger.job_ledger import JobLedger
from shared.ledger.limits import Lifetimes
from shared.models import ModelRegistry
from shared.queue.celery_app import make_celery
from shared.queue.messages import MessageBuilder
from shared.score_cache import ScoreReader
from shared.store.client import connect_async

logger = logging.getLogger("api")

_CLIENT_CLOSED_REQUEST = 499
_EXPOSED_HEADERS = ("Location", "Preference-Applied", "Retry-After", "Server-Timing", "X-Request-Id")
"""Response headers that web pages of allowed origins may read."""


def create_app(settings: ApiSettings, registry: ModelRegistry, *, keys_required: bool = False) -> FastAPI:
    """The ASGI application. `keys_required`: reject requests without a key even when no key exists."""
    metrics = Metrics()
    # FastAPI's own documentation pages load their assets from the internet.
    app = FastAPIOffline(
        title="rerankq",
        summary="A queue-driven rerank service: wait for the result, or get a job.",
        lifespan=_make_lifespan(settings, registry, metrics, keys_required),
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
    app.add_middleware(RequestContextMiddleware, render_exception=_render_exception, observe=metrics.observe)
    app.state.root = family(settings.root_dialect)
    _add_routes(app, app.state.root)
    app.openapi = partial(describe_api, app, app.state.root)  # type: ignore[method-assign]
    app.add_exception_handler(RerankqError, _handle_rerankq_error)
    app.add_exception_handler(HTTPException, _handle_http_exception)
    app.add_exception_handler(ClientDisconnect, _handle_disconnect)
    return app


def _make_lifespan(
    settings: ApiSettings, registry: ModelRegistry, metrics: Metrics, keys_required: bool
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        client = connect_async(settings.redis_url)
        ledger = JobLedger(client, Lifetimes(result=settings.result_seconds))
        completions = CompletionListener(client, ledger)
        pool_monitor = PoolMonitor(client, registry.specs)
        messages = MessageBuilder(make_celery(settings.redis_url))
        reconciler = Reconciler(client, ledger, messages, [spec.name for spec in registry.specs])
        file = KeyFile(settings.keys_file) if settings.keys_file else None
        authenticator = Authenticator(KeyStore(client), always_required=keys_required, file=file)
        submissions = SubmissionBuilder(
            pools=pool_monitor,
            models=registry,
            messages=messages,
            limits=_make_limits(settings),
            admission=Admission(pool_monitor, _make_admission_limits(settings), authenticator.terms_of),
            scores=ScoreReader(client) if settings.score_cache else None,
        )
        app.state.app_state = AppState(
            settings=settings,
            service=RerankService(
                ledger=ledger, index=JobIndex(client), completions=completions, submissions=submissions
            ),
            pools=pool_monitor,
            metrics=metrics,
            authenticator=authenticator,
        )
        await pool_monitor.refresh()
        # The objects that exist now live until shutdown: exempt them from garbage collection, which delays responses.
        gc.freeze()
        background = [asyncio.create_task(part.run()) for part in (completions, pool_monitor, reconciler)]
        for task in background:
            task.add_done_callback(_stop_process_on_failure)
        try:
            yield
        finally:
            await cancel_and_wait(background)
            await client.aclose()

    return lifespan


def _make_limits(settings: ApiSettings) -> Limits:
    return Limits(
        max_documents=settings.max_documents,
        wait_seconds=settings.wait_seconds,
        job_deadline_seconds=settings.job_deadline_seconds,
        shard_tokens=settings.shard_tokens,
        batch_window=settings.batch_window,
        max_windows=settings.max_windows,
    )


def _make_admission_limits(settings: ApiSettings) -> AdmissionLimits:
    return AdmissionLimits(settings.max_pending_tokens, settings.max_pending_jobs, settings.max_waiting)


def _add_routes(app: FastAPI, root: Family) -> None:
    for router in (
        rerank.make_router(root),
        jobs.router,
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
        logger.error("request %s: %s", request.state.request_id, error)
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
    logger.info("request %s: the client disconnected", request.state.request_id)
    return Response(status_code=_CLIENT_CLOSED_REQUEST)


def _render_exception(request: Request) -> Response:
    request_id = request.state.request_id
    message = f"internal error; the server log has the details under request id {request_id}"
    return _render(request, InternalError(message))
