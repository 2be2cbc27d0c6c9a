import time
from typing import Any

import pytest

from shared.models import ModelSpec
from worker.engines.base import Cancellation, EngineStartError, ScoringBatch
from worker.engines.lexical import LexicalEngine
from worker.engines.registry import ENGINES, build_engine


def lexical(**engine_args: Any) -> ModelSpec:
    return ModelSpec(name="m", engine="lexical", engine_args=engine_args)


def test_a_model_gets_the_engine_of_its_entry() -> None:
    assert isinstance(build_engine(lexical()), LexicalEngine)


@pytest.mark.parametrize("seconds", [0.05, "0.05"])
def test_the_lexical_engine_takes_a_delay(seconds: object) -> None:
    started = time.monotonic()
    build_engine(lexical(delay_seconds=seconds)).score(ScoringBatch("q", ["d"]), Cancellation())
    assert time.monotonic() - started >= 0.05


@pytest.mark.parametrize("seconds", ["soon", None, [], -1])
def test_an_invalid_delay_is_rejected_at_the_start(seconds: object) -> None:
    with pytest.raises(EngineStartError, match=r"engine_args\.delay_seconds must be a number of seconds"):
        build_engine(lexical(delay_seconds=seconds))


def test_an_unknown_engine_is_rejected_with_the_available_ones() -> None:
    with pytest.raises(EngineStartError, match="model 'm': no engine 'steam'; available: vllm, lexical"):
        build_engine(ModelSpec(name="m", engine="steam"))
    assert set(ENGINES) == {"vllm", "lexical"}
