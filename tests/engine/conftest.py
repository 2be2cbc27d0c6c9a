"""The bundled model in a real worker, loaded once for all tests that need nothing else."""

from collections.abc import Iterator

import pytest

from infra.local.stack import Stack
from tests.stacks import running


@pytest.fixture(scope="session")
def bi_encoder() -> Iterator[Stack]:
    with running(engine="vllm") as stack:
        yield stack
