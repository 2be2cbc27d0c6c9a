"""Rows and requests that the dialects' tests share."""

from typing import Any

import pytest

from api.dialects import panda
from api.dialects.base import Dialect
from shared.contracts import Document, RankedRow
from shared.errors import InvalidRequest

BODY: dict[str, Any] = {"query": panda.QUERY, "documents": ["one", "two"]}
ROWS = (
    RankedRow(index=1, score=0.9, document=Document(text="b"), truncated=True, window=(0, 1)),
    RankedRow(index=0, score=0.0, document=Document(text=""), error="the document is empty"),
)


def refusal(dialect: Dialect, body: dict[str, Any]) -> tuple[str, str | None]:
    """What is said of a body, and of which field."""
    with pytest.raises(InvalidRequest) as caught:
        dialect.parse(body)
    return caught.value.message, caught.value.param
