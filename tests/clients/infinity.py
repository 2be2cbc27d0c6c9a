"""Infinity's client, alone: it wants an older httpx than all the others."""

from infinity_client import AuthenticatedClient
from infinity_client.api.default import rerank
from infinity_client.errors import UnexpectedStatus
from infinity_client.models import RerankInput

from tests.clients.case import Client, Target, made, question, ranked


def infinity(target: Target) -> str:
    client = made("infinity_client", target, AuthenticatedClient=AuthenticatedClient)
    answer = rerank.sync(client=client, body=RerankInput(model=target.model, return_documents=True, **question()))
    assert answer.usage.total_tokens >= 0
    rows = answer.results
    return ranked([row.index for row in rows], [row.relevance_score for row in rows])


RAISES = dict.fromkeys((401, 404, 429, 503), UnexpectedStatus)
# Infinity itself says 400 of a model that it does not know.
EXACTLY = dict.fromkeys((401, 400, 429, 503), UnexpectedStatus)

CLIENTS = [
    Client("infinity_client", "infinity-client", infinity, RAISES),
    Client("infinity_client", "infinity-client", infinity, EXACTLY, prefix="/infinity"),
]
