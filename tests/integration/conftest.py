"""Running stacks with the lexical engine, shared by the integration tests."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from infra.local.stack import Stack
from tests.stacks import client_of, running, write_models

SLOW_SECONDS = 1.5
WAIT_SECONDS = 0.4


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running() as started:
        yield started


@pytest.fixture
def client(stack: Stack) -> Iterator[httpx.Client]:
    with client_of(stack) as opened:
        yield opened


@pytest.fixture(scope="module")
def slow_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack where scoring takes SLOW_SECONDS and the API waits only WAIT_SECONDS."""
    folder: Path = tmp_path_factory.mktemp("models")
    environment = {
        "RERANKQ_MODELS_FILE": write_models(folder, engine_args={"delay_seconds": SLOW_SECONDS}),
        "RERANKQ_WAIT_SECONDS": str(WAIT_SECONDS),
        "RERANKQ_MAX_BODY_BYTES": "4096",
    }
    with running(environment=environment) as started:
        yield started


@pytest.fixture
def slow_client(slow_stack: Stack) -> Iterator[httpx.Client]:
    with client_of(slow_stack) as opened:
        yield opened
