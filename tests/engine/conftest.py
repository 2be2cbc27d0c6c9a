"""A stack with the bundled model, shared by all tests; small models of every kind; and an engine to score with them."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from infra.local.stack import MODELS_FILE, Stack
from shared.models import load_models
from tests.engine.examples import DOCUMENTS, INSTRUCTION, QUERY
from tests.stacks import running, write_models

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

Outcome = dict[str, Any]
Drive = Callable[[list[dict[str, Any]]], list[Outcome]]


EXACT = {"dtype": "float32"}
"""The engine arguments for scores that are compared with those of reference code."""


@pytest.fixture(scope="session")
def exact_bi_encoder(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a stack that serves the bundled model in float32."""
    source = load_models(MODELS_FILE).default.source
    folder = tmp_path_factory.mktemp("exact")
    return {"RERANKQ_MODELS_FILE": write_models(folder, source=source, engine="vllm", engine_args=EXACT)}


@pytest.fixture(scope="session")
def bi_encoder(exact_bi_encoder: dict[str, str]) -> Iterator[Stack]:
    with running(engine="vllm", environment=exact_bi_encoder) as stack:
        yield stack


ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "VLLM_LOGGING_LEVEL": "ERROR"}


def run_program(*arguments: str, stdin: object) -> str:
    """Run a module as a program, with JSON on its standard input. Returns its output."""
    outcome = subprocess.run(
        [sys.executable, "-m", *arguments],
        input=json.dumps(stdin),
        env=os.environ | ENVIRONMENT,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr[-3000:]
    return outcome.stdout


def start_program(module: str, *, log: Path) -> "subprocess.Popen[str]":
    """Start a module as a program that reads requests until its standard input is closed."""
    with log.open("w") as file:
        return subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | ENVIRONMENT,
            cwd=ROOT,
            text=True,
        )


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Small models by kind: {"spec": the model's entry, "expected": the scores of the examples}."""
    folder = tmp_path_factory.mktemp("models")
    examples = {"query": QUERY, "documents": DOCUMENTS, "instruction": INSTRUCTION}
    models: dict[str, dict[str, Any]] = json.loads(run_program("tests.engine.tiny", str(folder), stdin=examples))
    return models


@pytest.fixture(scope="session")
def made_cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a cross-encoder with the bundled model's backbone and a random head."""
    folder = str(tmp_path_factory.mktemp("cross-encoder"))
    run_program("tests.engine.reference", "make", folder, "1", stdin=None)
    return folder


@pytest.fixture(scope="session")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drive]:
    """Load models into the real engine and score batches with them; drive.py describes cases and outcomes."""
    folder = tmp_path_factory.mktemp("outcomes")
    run_ids = count()
    child = start_program("tests.engine.drive", log=folder / "log")
    assert child.stdin is not None

    def run(cases: list[dict[str, Any]]) -> list[Outcome]:
        assert child.stdin is not None
        result_file = folder / f"{next(run_ids)}.json"
        child.stdin.write(json.dumps({"cases": cases, "result_file": str(result_file)}) + "\n")
        child.stdin.flush()
        deadline = time.monotonic() + 280
        while not result_file.exists():
            assert child.poll() is None, (folder / "log").read_text()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        outcomes: list[Outcome] = json.loads(result_file.read_text())
        return outcomes

    yield run
    child.stdin.close()
    child.wait(timeout=30)
