import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.contracts import (
    MAX_PRIORITY,
    Document,
    NumberedDocument,
    RerankRequest,
    ScoreScale,
    ShardScores,
    Truncation,
)
from shared.ledger.encoding import (
    decode_request,
    decode_scores,
    decode_shard_request,
    encode_documents,
    encode_request,
    encode_scores,
)
from tests.shared.support import make_request, properties

texts = st.text(max_size=20)
finite_floats = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | finite_floats | texts,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(texts, values, max_size=3),
    max_leaves=5,
)
documents = st.builds(
    Document,
    text=texts,
    query=st.none() | texts,
    fields=st.none() | st.dictionaries(texts, json_values, max_size=3),
    id=st.none() | texts | st.integers(-(2**63), 2**63),
    meta=json_values,
)
requests = st.builds(
    RerankRequest,
    model=st.none() | texts,
    query=texts,
    documents=st.lists(documents, max_size=4),
    top_n=st.none() | st.integers(1, 10**6),
    return_documents=st.booleans(),
    raw_scores=st.booleans(),
    instruction=st.none() | texts,
    max_tokens_per_query=st.none() | st.integers(1, 10**6),
    max_tokens_per_doc=st.none() | st.integers(1, 10**6),
    max_chunks_per_doc=st.integers(1, 10**6),
    overlap_tokens=st.none() | st.integers(0, 10**6),
    max_prompt_tokens=st.none() | st.integers(1, 10**6),
    truncation=st.sampled_from([Truncation.END, Truncation.START]),
    priority=st.integers(0, MAX_PRIORITY),
)
shard_scores = st.builds(
    ShardScores,
    scores=st.lists(st.none() | finite_floats, max_size=5),
    scale=st.sampled_from(ScoreScale),
    prompt_tokens=st.integers(0, 10**9),
    truncated=st.lists(st.integers(0, 10**4), max_size=3),
    windows=st.dictionaries(st.integers(0, 10**4), st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), max_size=3),
    errors=st.dictionaries(st.integers(0, 10**4), texts, max_size=3),
    queue_ms=finite_floats,
    inference_ms=finite_floats,
)


def round_trip(request: RerankRequest) -> RerankRequest:
    """The request after it is encoded and decoded with all documents in one shard."""
    return decode_request(encode_request(request), [encode_documents(request.documents)])


@properties
@given(requests, st.integers(1, 3))
def test_request_is_decoded_unchanged_from_any_shards(request: RerankRequest, size: int) -> None:
    slices = [request.documents[start : start + size] for start in range(0, len(request.documents), size)]
    assert decode_request(encode_request(request), [encode_documents(part) for part in slices]) == request


@properties
@given(requests)
def test_one_shard_is_decoded_to_a_request_with_only_its_documents(request: RerankRequest) -> None:
    first = request.documents[:1]
    decoded = decode_request(encode_request(request), [encode_documents(first)])
    assert decoded == request.model_copy(update={"documents": first})


@properties
@given(requests)
def test_query_of_a_document_replaces_the_query_of_the_request(request: RerankRequest) -> None:
    first = request.documents[:1]
    document_query = first[0].query if first else None
    decoded = decode_shard_request(encode_request(request), encode_documents(first))
    expected = request.query if document_query is None else document_query
    assert decoded == request.model_copy(update={"documents": first, "query": expected})


@properties
@given(requests)
def test_documents_of_a_request_without_truncation_keep_their_positions(request: RerankRequest) -> None:
    numbered = [
        NumberedDocument(position=7 + position, **dict(document)) for position, document in enumerate(request.documents)
    ]
    untruncated = request.model_copy(update={"documents": numbered, "truncation": Truncation.NONE})
    decoded = round_trip(untruncated)
    assert decoded == untruncated
    assert [type(document) for document in decoded.documents] == [NumberedDocument] * len(numbered)


@properties
@given(texts)
def test_plain_document_equals_a_validated_document(text: str) -> None:
    plain, other = Document.plain(text), Document(text=text)
    assert plain == other
    assert plain.model_copy(update={"id": 1}) == Document(text=text, id=1)
    assert plain.model_fields_set == other.model_fields_set
    assert encode_documents([plain]) == encode_documents([other])


@properties
@given(shard_scores)
def test_scores_are_decoded_unchanged(scores: ShardScores) -> None:
    assert decode_scores(encode_scores(scores)) == scores


def test_values_of_ids_and_metadata_keep_their_types() -> None:
    meta = {"ratio": 1.0, "count": 1, "flag": True, "nothing": None, "deep": [{"ü": "日本"}]}
    request = RerankRequest(query="q", documents=[Document(text="t", id="1", meta=meta), Document(text="t", id=1)])
    decoded = round_trip(request)
    assert repr(decoded.documents) == repr(request.documents)


def test_default_values_are_not_encoded() -> None:
    request = make_request("t")
    assert json.loads(encode_request(request)) == {"query": "a query"}
    assert json.loads(encode_documents(request.documents)) == [{"text": "t"}]


@pytest.mark.parametrize("payload", [b"", b"{}", b"[]", b'{"documents": []}'])
def test_invalid_request_is_rejected(payload: bytes) -> None:
    with pytest.raises(ValidationError):
        decode_request(payload, [])


@pytest.mark.parametrize("part", [b"", b"{}", b"[3]", b'[{"id": 1}]'])
def test_invalid_documents_are_rejected(part: bytes) -> None:
    with pytest.raises(ValidationError):
        decode_request(encode_request(make_request()), [part])
