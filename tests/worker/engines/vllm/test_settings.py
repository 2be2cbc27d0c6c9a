from typing import Any

import pytest

from shared.models import ModelSpec
from worker.engines.vllm.settings import engine_settings, prepare_environment


def settings(*, on_cpu: bool, **engine_args: Any) -> dict[str, Any]:
    return engine_settings(
        ModelSpec(name="m", source="hub/model", revision="r1", engine_args=engine_args), on_cpu=on_cpu
    )


@pytest.mark.parametrize("on_cpu", [True, False])
def test_the_engine_serves_the_models_own_revision_and_puts_what_is_urgent_first(on_cpu: bool) -> None:
    chosen = settings(on_cpu=on_cpu)
    assert (chosen["model"], chosen["revision"], chosen["runner"]) == ("hub/model", "r1", "pooling")
    assert chosen["scheduling_policy"] == "priority"


def test_on_the_cpu_it_computes_in_float32_uncompiled_and_leaves_memory_to_others() -> None:
    chosen = settings(on_cpu=True)
    assert (chosen["dtype"], chosen["enforce_eager"]) == ("float32", True)
    assert 0 < chosen["gpu_memory_utilization"] <= 0.3


def test_elsewhere_these_are_vllms_own_choice() -> None:
    assert not {"dtype", "enforce_eager", "max_num_seqs", "gpu_memory_utilization"} & set(settings(on_cpu=False))


@pytest.mark.parametrize("on_cpu", [True, False])
def test_what_the_models_entry_says_comes_before_every_choice(on_cpu: bool) -> None:
    chosen = settings(on_cpu=on_cpu, dtype="bfloat16", enforce_eager=False, scheduling_policy="fcfs")
    assert (chosen["dtype"], chosen["enforce_eager"], chosen["scheduling_policy"]) == ("bfloat16", False, "fcfs")


def test_what_the_operator_has_set_for_vllm_is_kept() -> None:
    environment = {"VLLM_ENABLE_V1_MULTIPROCESSING": "1", "VLLM_CPU_OMP_THREADS_BIND": "0"}
    prepare_environment(environment)
    assert (environment["VLLM_ENABLE_V1_MULTIPROCESSING"], environment["VLLM_CPU_OMP_THREADS_BIND"]) == ("1", "0")


def test_otherwise_the_engine_is_in_this_process_and_on_every_core() -> None:
    environment: dict[str, str] = {}
    prepare_environment(environment)
    assert environment["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert environment["VLLM_CPU_OMP_THREADS_BIND"]
