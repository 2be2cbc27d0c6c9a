from typing import Any

import pytest

from shared.models import ModelSpec
from worker.engines.vllm.precision import read_cpu_features
from worker.engines.vllm.settings import engine_settings, prepare_environment


def settings(*, on_cpu: bool, **engine_args: Any) -> dict[str, Any]:
    return engine_settings(
        ModelSpec(name="m", source="hub/model", revision="r1", engine_args=engine_args), on_cpu=on_cpu
    )


@pytest.mark.parametrize("on_cpu", [True, False])
def test_the_engine_pools_the_models_revision_and_schedules_by_priority(on_cpu: bool) -> None:
    chosen = settings(on_cpu=on_cpu)
    assert (chosen["model"], chosen["revision"], chosen["runner"]) == ("hub/model", "r1", "pooling")
    assert chosen["scheduling_policy"] == "priority"


def test_on_a_cpu_the_engine_does_not_compile_and_uses_little_memory() -> None:
    chosen = settings(on_cpu=True)
    assert chosen["enforce_eager"] is True
    assert 0 < chosen["gpu_memory_utilization"] <= 0.3


def test_the_precision_is_chosen_and_logged_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    native = bool(read_cpu_features() & {"amx_bf16", "avx512_bf16", "bf16"})
    assert settings(on_cpu=True)["dtype"] == ("bfloat16" if native else "float32")
    assert settings(on_cpu=True, dtype="auto")["dtype"] == settings(on_cpu=True)["dtype"]
    assert "natively" in caplog.text


def test_on_a_gpu_vllm_chooses_these_settings() -> None:
    chosen = settings(on_cpu=False)
    assert chosen["dtype"] == "auto"
    assert not {"enforce_eager", "gpu_memory_utilization"} & set(chosen)


@pytest.mark.parametrize("on_cpu", [True, False])
def test_engine_args_override_every_setting(on_cpu: bool) -> None:
    chosen = settings(on_cpu=on_cpu, dtype="bfloat16", enforce_eager=False, scheduling_policy="fcfs")
    assert (chosen["dtype"], chosen["enforce_eager"], chosen["scheduling_policy"]) == ("bfloat16", False, "fcfs")


def test_environment_variables_of_the_operator_are_kept() -> None:
    environment = {"VLLM_ENABLE_V1_MULTIPROCESSING": "1", "VLLM_CPU_OMP_THREADS_BIND": "0"}
    prepare_environment(environment)
    assert (environment["VLLM_ENABLE_V1_MULTIPROCESSING"], environment["VLLM_CPU_OMP_THREADS_BIND"]) == ("1", "0")


def test_by_default_the_engine_runs_in_this_process_on_every_core() -> None:
    environment: dict[str, str] = {}
    prepare_environment(environment)
    assert environment["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert environment["VLLM_CPU_OMP_THREADS_BIND"]
