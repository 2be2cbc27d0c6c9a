"""A canceled job frees vLLM at once."""

import time

import pytest

from infra.local.stack import Stack
from tests.stacks import PANDA, client_of

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

MANY = {"query": "What is a panda?", "documents": [f"passage number {number} " * 60 for number in range(600)]}


def test_a_canceled_job_frees_the_engine(bi_encoder: Stack) -> None:
    with client_of(bi_encoder) as client:
        job = client.post("/v1/rerank", json=MANY, headers={"Prefer": "wait=1"})
        assert job.status_code == 202
        started = time.monotonic()
        assert client.post(f"/v1/jobs/{job.json()['id']}/cancel").json()["status"] == "canceled"
        # It has the same priority, so it would wait for all pairs of the other job: most of a minute.
        assert client.post("/v1/rerank", json=PANDA).status_code == 200
        assert time.monotonic() - started < 6
