"""Spans of one request across processes, by OpenTelemetry. Nothing is imported and nothing is done unless switched on.

The context travels as W3C `traceparent`: in HTTP headers, and in the job from the API to its workers. Spans have ids,
names of models, classes and counts, never text of a caller. OpenTelemetry's own environment variables configure the
exporter and the sampler (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_SAMPLER` ...).
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from typing import Any, Literal

from shared.errors import ConfigurationError

TracingForm = Literal["off", "otlp"]
Attribute = str | int | float | bool

_tracer: Any = None
_provider: Any = None
_NOTHING = nullcontext()


def require_tracing(form: TracingForm) -> None:
    """Raises ConfigurationError when spans are wanted and the extra `tracing` is not installed."""
    if form != "off" and not _is_installed("opentelemetry.exporter.otlp.proto.http"):
        raise ConfigurationError(
            "RERANKQ_TRACING=otlp needs OpenTelemetry: pip install 'rerankq[tracing]'", param="tracing"
        )


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def set_up_tracing(form: TracingForm, process: str, **attributes: str) -> None:
    """Export spans from now on, as the service `rerankq-PROCESS`. Call it once, after the last fork.

    Raises what `require_tracing` raises.
    """
    global _tracer, _provider
    require_tracing(form)
    if form == "off":
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({"service.name": f"rerankq-{process}", **attributes})
    _provider = TracerProvider(resource=resource)
    _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracer = _provider.get_tracer("rerankq")


def shut_down_tracing() -> None:
    """Export what is left, and stop."""
    global _tracer, _provider
    if _provider is not None:
        _provider.shutdown()
    _tracer = _provider = None


def is_tracing() -> bool:
    return _tracer is not None


def span(name: str, **attributes: Attribute) -> AbstractContextManager[Any]:
    """A span of the block, within the current one. An exception marks it as failed, by its type."""
    return _NOTHING if _tracer is None else _span(name, None, attributes)


@contextmanager
def request_span(name: str, traceparent: str | None) -> Iterator[Any]:
    """The span of an HTTP request, within its caller's span if there is one. Call it only when `is_tracing`."""
    from opentelemetry.trace import SpanKind

    with _span(name, traceparent, {}, kind=SpanKind.SERVER) as current:
        yield current


@contextmanager
def _span(name: str, traceparent: str | None, attributes: Mapping[str, Attribute], **options: Any) -> Iterator[Any]:
    from opentelemetry.trace import Status, StatusCode

    context = _context_of(traceparent) if traceparent else None
    # Without the exception's message and traceback: it may quote what a caller sent.
    with _tracer.start_as_current_span(
        name, context, attributes=attributes, record_exception=False, set_status_on_exception=False, **options
    ) as current:
        try:
            yield current
        except Exception as error:
            current.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise


def record_spans(
    traceparent: str,
    name: str,
    start: float,
    end: float,
    attributes: Mapping[str, Attribute],
    parts: Mapping[str, tuple[float, float]],
) -> None:
    """Record a span that has ended, within another process's, and its parts by name. Times are Unix seconds."""
    if _tracer is None:
        return
    from opentelemetry.trace import set_span_in_context

    whole = _tracer.start_span(name, _context_of(traceparent), attributes=attributes, start_time=_nanoseconds(start))
    inside = set_span_in_context(whole)
    for part, (begin, finish) in parts.items():
        _tracer.start_span(part, inside, start_time=_nanoseconds(begin)).end(_nanoseconds(finish))
    whole.end(_nanoseconds(end))


def current_traceparent() -> str:
    """The current span in W3C's form; empty without one."""
    if _tracer is None:
        return ""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent", "")


def trace_id_of(traceparent: str) -> str:
    """The 32 hexadecimal digits of the trace."""
    return traceparent.split("-")[1] if traceparent.count("-") == 3 else ""


def _context_of(traceparent: str) -> Any:
    """The context that a traceparent names; an empty one when it is malformed."""
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": traceparent}, context=Context())


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
