"""Parses a line of a batch's input into a rerank request. Knows the forms that clients write.

OpenAI's form has `custom_id`, `method`, `url` and `body`; `url` selects the dialect of the body. Voyage's form has
`custom_id` and `body`. A plain line is the body itself, with an optional `custom_id`. Scores nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from api.batches.input_lines import InputLine
from api.dialects.base import Dialect
from api.dialects.registry import RUNPOD, Family, mounted_families
from api.http.middleware import clean_path
from api.http.request_body import parse_json_object
from shared.contracts import RerankRequest
from shared.errors import InvalidRequest, PayloadTooLarge, RerankqError
from shared.sharding import estimate_tokens

MAX_CUSTOM_ID = 512
_ENVELOPE = frozenset({"custom_id", "method", "url", "body"})
_LISTS = ("documents", "docs", "texts", "passages", "items", "data_2", "text_2", "input")
"""The fields that hold the documents of a request, in any dialect."""
_SUFFIXES = ("/reranking", "/v1/rerank", "/v2/rerank", "/rerank", "/v1/score", "/score")
_SPECIAL_TOKENS = 3


@dataclass(frozen=True, slots=True)
class LineSummary:
    """What a line asks for, estimated without parsing its request; `pairs` is 0 for a line without documents."""

    custom_id: str | None
    model: str | None = None
    pairs: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class LineRequest:
    """A line's request, or the error of a line without a valid one. `dialect` renders its answer or error."""

    number: int
    summary: LineSummary
    dialect: Dialect
    request: RerankRequest | None = None
    error: RerankqError | None = None


@dataclass(slots=True)
class _Envelope:
    """The parts of a line that were read before an error; `body` includes the batch's defaults."""

    dialect: Dialect
    custom_id: str | None = None
    body: dict[str, Any] = field(default_factory=dict)
    error: RerankqError | None = None


class LineParser:
    """Parses the lines of one batch. `endpoint` is the path of lines without a url."""

    def __init__(self, endpoint: str, defaults: Mapping[str, Any] | None, root: Family, max_bytes: int) -> None:
        default_dialect = dialect_at(endpoint, root)
        assert default_dialect is not None
        self._endpoint = endpoint
        self._default_dialect = default_dialect
        self._defaults = dict(defaults or {})
        self._root = root
        self._max_bytes = max_bytes

    def summarize(self, line: InputLine) -> LineSummary:
        """The line's custom_id, model and estimated size. A malformed line has only its custom_id, if any."""
        envelope = self._open(line)
        return _summarize(envelope, line)

    def parse(self, line: InputLine) -> LineRequest:
        """The line's request. Errors are returned, not raised."""
        envelope = self._open(line)
        summary, dialect = _summarize(envelope, line), envelope.dialect
        if envelope.error is not None:
            return LineRequest(line.number, summary, dialect, error=envelope.error)
        dialect = dialect.dialect_for_body(envelope.body)
        try:
            request = dialect.parse(envelope.body).model_copy(update={"use_cache": False})
        except RerankqError as error:
            return LineRequest(line.number, summary, dialect, error=error)
        return LineRequest(line.number, summary, dialect, request)

    def _open(self, line: InputLine) -> "_Envelope":
        envelope = _Envelope(self._default_dialect)
        try:
            self._read(line, envelope)
        except RerankqError as error:
            envelope.error = error
        return envelope

    def _read(self, line: InputLine, envelope: "_Envelope") -> None:
        if line.text is None:
            raise PayloadTooLarge(f"the line is over the limit of {self._max_bytes} bytes")
        fields = parse_json_object(line.text, "the line")
        custom_id = fields.get("custom_id")
        if custom_id is not None and not (isinstance(custom_id, str) and 0 < len(custom_id) <= MAX_CUSTOM_ID):
            raise InvalidRequest(f"custom_id must be a string of 1 to {MAX_CUSTOM_ID} characters", param="custom_id")
        envelope.custom_id = custom_id
        envelope.dialect = self._dialect(fields)
        envelope.body = self._body(fields)

    def _dialect(self, envelope: dict[str, Any]) -> Dialect:
        if (method := envelope.get("method")) not in (None, "POST", "post"):
            raise InvalidRequest(f"method must be POST, not {str(method)[:20]!r}", param="method")
        url = envelope.get("url")
        if url is None:
            url = self._endpoint
        dialect = dialect_at(url, self._root) if isinstance(url, str) else None
        if dialect is None:
            raise InvalidRequest(f"url must be the path of a rerank route, not {str(url)[:100]!r}", param="url")
        return dialect

    def _body(self, envelope: dict[str, Any]) -> dict[str, Any]:
        if "body" not in envelope:
            body = {name: value for name, value in envelope.items() if name not in _ENVELOPE}
        else:
            body = envelope["body"]
        if not isinstance(body, dict):
            raise InvalidRequest("body must be a JSON object", param="body")
        if not self._defaults:
            return body
        # A null is an absent field: it does not override a default.
        return self._defaults | {name: value for name, value in body.items() if value is not None}


@cache
def _dialects_by_path(root: Family) -> dict[str, Dialect]:
    return {
        prefix + path: dialect
        for prefix, family in (*mounted_families(root), (f"/{RUNPOD.name}", RUNPOD))
        for dialect in family.dialects
        for path in (*dialect.paths, *dialect.aliases)
    }


def dialect_at(url: str, root: Family) -> Dialect | None:
    """The dialect of a rerank path; None for other paths. Unknown prefixes of a known path are ignored."""
    path = clean_path(url)
    dialects = _dialects_by_path(root)
    if path in dialects:
        return dialects[path]
    return next((dialects[suffix] for suffix in _SUFFIXES if path.endswith(suffix) and suffix in dialects), None)


def _summarize(envelope: _Envelope, line: InputLine) -> LineSummary:
    body = envelope.body
    model, query, nested = body.get("model"), body.get("query"), body.get("input")
    pairs = max(_count(body), _count(nested) if isinstance(nested, dict) else 0)
    query_tokens = (estimate_tokens(query) if isinstance(query, str) else 0) + _SPECIAL_TOKENS
    tokens = len(line.text or b"") // 4 + pairs * query_tokens
    return LineSummary(envelope.custom_id, model if isinstance(model, str) else None, pairs, tokens)


def _count(body: Mapping[str, Any]) -> int:
    values = (body.get(name) for name in _LISTS)
    return max(len(value) if isinstance(value, list) else isinstance(value, str) for value in values)
