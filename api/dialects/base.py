"""The interface of a dialect: the request, response and error format of one kind of client.

Each dialect is one file: parsing, rendering, and the models that describe both in the OpenAPI document.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel

from api.dialects.request_fields import JsonObject
from api.http.error_responses import status_of
from shared.contracts import RerankRequest, RerankResult
from shared.errors import RerankqError
from shared.webhooks import WebhookTarget


class Dialect(ABC):
    """The format of one kind of client."""

    name: ClassVar[str]
    """The name stored in a job's record: it must never change."""
    paths: ClassVar[Sequence[str]]
    """Its paths, below the prefix of its family."""
    aliases: ClassVar[Sequence[str]] = ()
    """Other paths that clients use for these: served, but not documented."""

    summary: ClassVar[str] = "Rank documents by their relevance to a query"
    request_model: ClassVar[type[BaseModel]]
    """The documented body. `parse` also accepts other forms."""
    answer_models: ClassVar[Sequence[type[BaseModel]]]
    """The exact shapes that `render` returns."""
    error_model: ClassVar[type[BaseModel]]
    """The exact shape that `render_error` returns."""
    examples: ClassVar[Mapping[str, JsonObject]]
    """Example bodies by short name. Tests send each and compare the answer with the OpenAPI document."""

    def readers(self, path: str) -> Sequence["Dialect"]:
        """The dialects that may parse a body sent to this path, most likely first; see `dialect_for_body`."""
        return (self,)

    def dialect_for_body(self, body: JsonObject) -> "Dialect":
        """The dialect that parses and answers this body: another one when the body selects it."""
        return self

    @abstractmethod
    def parse(self, body: JsonObject) -> RerankRequest:
        """Parse a decoded JSON object. Raises InvalidRequest naming the field."""

    def read_webhook(self, body: JsonObject) -> WebhookTarget | None:
        """Where the body wants the end of its job reported. Raises InvalidRequest naming the field.

        None unless the format has a field for it.
        """
        return None

    @abstractmethod
    def render(self, result: RerankResult) -> Any:
        """The answer's body, ready for JSON. The same result always renders to the same body."""

    @abstractmethod
    def render_error(self, error: RerankqError, request_id: str = "") -> Any:
        """An error's body, ready for JSON."""

    def status_of(self, error: RerankqError) -> int:
        """The HTTP status of an error."""
        return status_of(error)
