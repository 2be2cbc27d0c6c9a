from collections.abc import Iterator

import httpx
import pytest

from infra.local.stack import Stack
from tests.stacks import client_of, running


@pytest.fixture(scope="package")
def stack() -> Iterator[Stack]:
    # Several examples send the same request. Each must be scored as if it were the first.
    with running(environment={"RERANKQ_SCORE_CACHE": "false"}) as started:
        yield started


@pytest.fixture
def client(stack: Stack) -> Iterator[httpx.Client]:
    with client_of(stack) as opened:
        yield opened
