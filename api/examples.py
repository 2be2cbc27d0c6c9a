"""The OpenAPI examples of the rerank paths. Tests run them as they stand."""

from typing import Any

PANDA_QUERY = "What is a panda?"
PANDA_DOCUMENTS = [
    "hi",
    "it is a bear",
    "The giant panda (Ailuropoda melanoleuca), sometimes called a panda bear or simply panda, "
    "is a bear species endemic to China.",
]

RERANK_REQUEST_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["query", "documents"],
                    "properties": {
                        "model": {
                            "type": ["string", "null"],
                            "description": "Default: the first one served.",
                        },
                        "query": {"type": "string"},
                        "documents": {
                            "type": "array",
                            "description": "Strings, or objects with text (or the rank_fields), id and meta.",
                            "items": {"anyOf": [{"type": "string"}, {"type": "object"}]},
                        },
                        "top_n": {"type": ["integer", "null"], "minimum": 1},
                        "return_documents": {"type": ["boolean", "null"]},
                        "raw_scores": {"type": ["boolean", "null"], "default": False},
                        "rank_fields": {
                            "type": ["array", "null"],
                            "description": "The fields of an object that are scored, in this order.",
                            "items": {"type": "string"},
                        },
                        "instruction": {
                            "type": ["string", "null"],
                            "description": "For models with a score template.",
                        },
                        "max_tokens_per_query": {"type": ["integer", "null"], "minimum": 1},
                        "max_tokens_per_doc": {"type": ["integer", "null"], "minimum": 1},
                        "max_chunks_per_doc": {"type": ["integer", "null"], "minimum": 1, "default": 1},
                        "overlap_tokens": {"type": ["integer", "null"], "minimum": 0},
                        "priority": {"type": ["integer", "null"], "minimum": 0, "maximum": 999},
                    },
                },
                "example": {"query": PANDA_QUERY, "documents": PANDA_DOCUMENTS, "top_n": 3},
            }
        },
    }
}

_ERROR: dict[str, Any] = {"content": {"application/json": {}}}
RERANK_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The documents, best first.", "content": {"application/json": {}}},
    202: {"description": "A job, to a caller that sent `Prefer: respond-async` or `wait=N`.", **_ERROR},
    400: {"description": "The request is wrong; the message names the field.", **_ERROR},
    401: {"description": "A key is required.", **_ERROR},
    404: {"description": "The model is not served.", **_ERROR},
    409: {"description": "The job was canceled by somebody else.", **_ERROR},
    413: {"description": "The body is over the limit.", **_ERROR},
    500: {"description": "The engine could not score the request.", **_ERROR},
    503: {"description": "The model failed to start, or Redis is away.", **_ERROR},
    504: {"description": "No result in time; `Location` names the job, which goes on.", **_ERROR},
}
