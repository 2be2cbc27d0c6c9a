"""vLLM takes the default step that the worker chooses for the device, and fits it to the model."""

from typing import Any

import pytest

from tests.engine.conftest import Drive

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]


def test_the_default_step_is_ours_and_has_room_for_the_models_longest_prompt(
    tiny_models: dict[str, dict[str, Any]], drive: Drive
) -> None:
    spec = tiny_models["bert"]["spec"]
    asked = spec | {"engine_args": {"max_num_batched_tokens": 700}}
    cases = [(spec, 3000), (spec, 100), (asked, 3000)]
    outcomes = drive([{"spec": entry, "default_step": tokens} for entry, tokens in cases])
    # The model's prompts have up to 256 tokens.
    assert outcomes == [{"step": 3000}, {"step": 256}, {"step": 700}]
