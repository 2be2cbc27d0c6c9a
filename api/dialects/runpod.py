"""RunPod's serverless API: the input and output of its infinity worker, and the errors below /runpod.

Rows are in the order of the documents, as that worker returns them. The routes are in api/routes/runpod: RunPod's paths
name an endpoint and an operation, not a format.
"""

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, Field

from api.dialects import examples
from api.dialects.base import Dialect
from api.dialects.request_fields import (
    JsonObject,
    ObjectHandling,
    read_documents,
    read_query,
    read_request,
    without_nulls,
)
from api.dialects.rows import rows_of, text_of
from api.dialects.schemas import Model, Omitted, PromptUsage, Query, RequestSchema, ResponseSchema, Row, Texts
from shared.contracts import RerankRequest, RerankResult
from shared.errors import RerankqError

DOCS_REQUIRED = "docs: at least one document is required"
_OWN_NAMES = {"return_documents": "return_docs"}


class RunpodInput(RequestSchema):
    """A query and the documents to score, as the infinity worker reads them."""

    model: Model = None
    query: Query
    docs: Texts
    return_docs: Annotated[bool | None, Field(description="Default: false.")] = None


class RunpodRow(Row):
    """A scored document, with its text when requested."""

    document: str | Omitted = None


class RunpodOutput(ResponseSchema):
    """The documents with their scores, in the order of the input."""

    model: str
    results: list[RunpodRow]
    usage: PromptUsage


class RunpodError(ResponseSchema):
    """An error. It has no `status`: RunPod's SDK for asyncio would read it as the status of a job."""

    error: str
    type: str
    param: str | None


class RunpodDialect(Dialect):
    """The dialect under /runpod."""

    name = "runpod"
    paths: ClassVar[tuple[str, ...]] = ("/infinity-worker",)
    """Names this format in the lines of a batch. There is no such route."""
    request_model = RunpodInput
    answer_models: ClassVar[tuple[type[BaseModel], ...]] = (RunpodOutput,)
    error_model = RunpodError
    examples: ClassVar[dict[str, JsonObject]] = {
        "docs": {"query": examples.QUERY, "docs": examples.DOCUMENTS, "return_docs": True},
    }

    def parse(self, body: JsonObject) -> RerankRequest:
        body = {"return_docs": False} | without_nulls(body)
        query = read_query(body)
        documents = read_documents(body, ObjectHandling.REFUSED, field="docs", required=DOCS_REQUIRED)
        return read_request(body, documents, query, own_names=_OWN_NAMES)

    def render(self, result: RerankResult) -> dict[str, Any]:
        tokens = result.prompt_tokens
        return {
            "model": result.model,
            "results": sorted(rows_of(result, text_of), key=lambda row: int(row["index"])),
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }

    def render_error(self, error: RerankqError, request_id: str = "") -> dict[str, Any]:
        return {"error": error.message, "type": error.code, "param": error.param}
