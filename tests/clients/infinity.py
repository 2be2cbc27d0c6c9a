"""Infinity's client. It needs an older httpx than the other clients, so it has its own set."""

from infinity_client import AuthenticatedClient
from infinity_client.api.default import rerank
from infinity_client.errors import UnexpectedStatus
from infinity_client.models import RerankInput

from tests.clients.case import Client, Target, check_ranking, evaluate_line, question


def infinity(target: Target) -> str:
    client = evaluate_line("infinity_client", target, AuthenticatedClient=AuthenticatedClient)
    response = rerank.sync(client=client, body=RerankInput(model=target.model, return_documents=True, **question()))
    assert response.usage.total_tokens >= 0
    rows = response.results
    return check_ranking([row.index for row in rows], [row.relevance_score for row in rows])


RAISES = dict.fromkeys((401, 404, 429, 503), UnexpectedStatus)
# Infinity returns 400 for an unknown model, and so does its dialect.
RAISES_AT_PREFIX = dict.fromkeys((401, 400, 429, 503), UnexpectedStatus)

CLIENTS = [
    Client("infinity_client", "infinity-client", infinity, RAISES),
    Client("infinity_client", "infinity-client", infinity, RAISES_AT_PREFIX, prefix="/infinity"),
]
