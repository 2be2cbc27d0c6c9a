"""What a dialect is: how one kind of client asks, and what it wants to hear, errors included.

One file a dialect: what it reads, what it answers, and the models that say both in the OpenAPI document.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel

from api.dialects.request_fields import JsonObject
from api.http.error_responses import status_of
from shared.contracts import RerankRequest, RerankResult
from shared.errors import RerankqError


class Dialect(ABC):
    """One way of speaking."""

    name: ClassVar[str]
    """What a job's record remembers: never to be changed."""
    paths: ClassVar[Sequence[str]]
    """Where it is spoken, below the prefix of its family."""
    aliases: ClassVar[Sequence[str]] = ()
    """Paths where some clients look for those: served, not shown."""

    summary: ClassVar[str] = "Rank documents by their relevance to a query"
    request_model: ClassVar[type[BaseModel]]
    """What is documented of the body. What is read of it is up to `parse`, which takes more."""
    answer_models: ClassVar[Sequence[type[BaseModel]]]
    """Each shape that `render` has, exactly."""
    error_model: ClassVar[type[BaseModel]]
    """The shape that `render_error` has, exactly."""
    examples: ClassVar[Mapping[str, JsonObject]]
    """Bodies to try, by a short name. Tests send each and compare with what the OpenAPI document says."""

    def readers(self, path: str) -> Sequence["Dialect"]:
        """Who may read a body that is sent to this path, the likeliest first; see `dialect_for_body`."""
        return (self,)

    def dialect_for_body(self, body: JsonObject) -> "Dialect":
        """Who reads and answers this body; another one than itself where the body decides."""
        return self

    @abstractmethod
    def parse(self, body: JsonObject) -> RerankRequest:
        """Read a decoded JSON object. Raises InvalidRequest naming the field."""

    @abstractmethod
    def render(self, result: RerankResult) -> Any:
        """The answer's body, ready for JSON. The same for the same result, whenever it is asked."""

    @abstractmethod
    def render_error(self, error: RerankqError, request_id: str = "") -> Any:
        """An error's body, ready for JSON."""

    def status_of(self, error: RerankqError) -> int:
        """The HTTP status of an error."""
        return status_of(error)
