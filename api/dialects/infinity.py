"""Infinity's schema, which Nebul speaks field for field: documents are strings, and come back as strings."""

from typing import Any

from api.dialects.base import JsonObject, read_documents, read_query, read_request, without_nulls
from api.errors import superset_body
from shared.contracts import RankedRow, RerankRequest, RerankResult
from shared.errors import RerankqError


class InfinityDialect:
    """Speaks under /infinity and /nebul."""

    paths = ("/v1/rerank", "/rerank")

    def __init__(self, name: str) -> None:
        self.name = name

    def parse(self, body: JsonObject) -> RerankRequest:
        body = {"return_documents": False} | without_nulls(body)
        query = read_query(body)
        return read_request(body, read_documents(body, objects=False), query)

    def render(self, result: RerankResult) -> dict[str, Any]:
        tokens = result.prompt_tokens
        return {
            "object": "rerank",
            "results": [_row(row, result.return_documents) for row in result.rows],
            "model": result.model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "id": result.id,
            "created": result.created,
        }

    def render_error(self, error: RerankqError) -> dict[str, Any]:
        return superset_body(error)


def _row(row: RankedRow, with_document: bool) -> dict[str, Any]:
    rendered: dict[str, Any] = {"relevance_score": row.score, "index": row.index}
    if with_document:
        rendered["document"] = row.document.text
    return rendered
