"""The root's dialect: one answer that Jina's, Cohere's, vLLM's, GPUStack's and Bifrost's clients all read.

Takes documents as strings, as objects with `text`, `id` and `meta`, or as objects among whose fields `rank_fields`
picks; echoes them as objects.
"""

from typing import Any

from api.dialects.base import JsonObject, read_documents, read_query, read_request, without_nulls
from api.errors import superset_body
from shared.contracts import RankedRow, RerankRequest, RerankResult
from shared.errors import RerankqError


class SupersetDialect:
    """Speaks at the root."""

    name = "superset"
    paths = ("/v1/rerank", "/rerank", "/v2/rerank")

    def parse(self, body: JsonObject) -> RerankRequest:
        body = without_nulls(body)
        query = read_query(body)
        return read_request(body, read_documents(body), query)

    def render(self, result: RerankResult) -> dict[str, Any]:
        rows = [_row(row) for row in result.rows]
        results = rows
        if result.return_documents:
            results = [base | {"document": _document(row)} for base, row in zip(rows, result.rows, strict=True)]
        tokens = result.prompt_tokens
        cached = {"cached_pairs": result.cached_pairs} if result.cached_pairs else {}
        return {
            "id": result.id,
            "object": "rerank",
            "created": result.created,
            "model": result.model,
            "results": results,
            "data": rows,
            "usage": {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens} | cached,
            "meta": {
                "api_version": {"version": "2"},
                "billed_units": {"search_units": 1},
                "tokens": {"input_tokens": tokens, "output_tokens": 0},
            },
        }

    def render_error(self, error: RerankqError) -> dict[str, Any]:
        return superset_body(error)


def _row(row: RankedRow) -> dict[str, Any]:
    rendered: dict[str, Any] = {"index": row.index, "relevance_score": row.score}
    if row.truncated:
        rendered["truncated"] = True
    if row.window is not None:
        rendered["window"] = {"start": row.window[0], "end": row.window[1]}
    if row.error is not None:
        rendered["error"] = row.error
    return rendered


def _document(row: RankedRow) -> dict[str, Any]:
    """What the caller gave: an object as it came, otherwise never a null, which some clients reject."""
    if row.document.fields is not None:
        return row.document.fields
    return row.document.model_dump(exclude_none=True)
