"""Rows, request bodies and strategies that the tests of the dialects share."""

from typing import Any

import pytest
from hypothesis import strategies as st

from api.dialects import examples
from api.dialects.base import Dialect
from shared.contracts import Document, RankedRow
from shared.errors import InvalidRequest

BODY: dict[str, Any] = {"query": examples.QUERY, "documents": ["one", "two"]}
ROWS = (
    RankedRow(index=1, score=0.9, document=Document(text="b"), truncated=True, window=(0, 1)),
    RankedRow(index=0, score=0.0, document=Document(text=""), error="the document is empty"),
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda values: (
        st.lists(values, max_size=3)
        | st.dictionaries(st.sampled_from(["text", "id", "meta", "content", "type", "provider", "model"]), values)
    ),
    max_leaves=4,
)
LISTS = ["documents", "texts", "passages", "items", "data_1", "data_2", "text_1", "text_2", "queries", "input"]
FLAGS = ["return_documents", "return_text", "raw_scores", "use_activation", "truncate", "truncation", "return_input"]
SIDES = ["truncation_side", "truncation_direction", "parameters"]
NUMBERS = ["top_n", "top_k", "priority", "max_tokens_per_query", "max_chunk_per_doc", "overlap_tokens"]
bodies = st.fixed_dictionaries(
    {},
    optional={
        "query": st.just("q") | json_values,
        **{name: st.lists(st.just("t") | json_values, max_size=3) | json_values for name in LISTS},
        **dict.fromkeys(
            [*FLAGS, *SIDES, *NUMBERS, "model", "instruction", "fallbacks", "truncate_prompt_tokens"], json_values
        ),
        "rank_fields": st.lists(st.sampled_from(["text", "id", "meta", ""]), max_size=2) | json_values,
    },
)


def parse_error(dialect: Dialect, body: dict[str, Any]) -> tuple[str, str | None]:
    """The message and the field of the InvalidRequest that parsing this body raises."""
    with pytest.raises(InvalidRequest) as caught:
        dialect.parse(body)
    return caught.value.message, caught.value.param
