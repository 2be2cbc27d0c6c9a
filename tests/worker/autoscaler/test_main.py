import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from shared.errors import ConfigurationError
from shared.keys import pool_keys
from shared.models import ModelSpec, PoolSettings
from shared.processes import ChildProcess
from tests.shared.support import MODEL
from tests.stacks import write_models
from tests.worker.support import wait_until
from worker.autoscaler.__main__ import main, make_launcher, visible_devices
from worker.autoscaler.launchers import LocalLauncher, ObserveOnlyLauncher
from worker.autoscaler.settings import AutoscalerSettings


def test_help_describes_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert "Start workers when there is work" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("RERANKQ_CAPACITY", "0", "RERANKQ_CAPACITY: Input should be greater than or equal to 1"),
        ("RERANKQ_LAUNCHER", "magic", "RERANKQ_LAUNCHER: Input should be 'processes' or 'none'"),
        ("RERANKQ_MODELS_FILE", "/no/such/file", "cannot read the models file /no/such/file"),
    ],
)
def test_an_invalid_setting_is_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str, value: str, words: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert main([]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"autoscaler: {words}")
    assert printed.count("\n") == 1


def test_an_unknown_model_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--models-file", write_models(tmp_path), "--model", "other"]) == 2
    assert "model 'other' is not served here; served: test-model" in capsys.readouterr().err


class TestVisibleDevices:
    @pytest.mark.parametrize(
        ("chosen", "devices"),
        [("0,2", ["0", "2"]), ("GPU-8932f937, GPU-4f1d", ["GPU-8932f937", "GPU-4f1d"]), ("", []), ("-1", [])],
    )
    def test_cuda_visible_devices_selects_them(self, tmp_path: Path, chosen: str, devices: list[str]) -> None:
        (tmp_path / "nvidia7").touch()
        assert visible_devices({"CUDA_VISIBLE_DEVICES": chosen}, tmp_path) == devices

    def test_by_default_all_gpus_are_visible(self, tmp_path: Path) -> None:
        for name in ("nvidia0", "nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm", "null"):
            (tmp_path / name).touch()
        assert visible_devices({}, tmp_path) == ["0", "2", "10"]


class TestMakeLauncher:
    def make(self, *pools: PoolSettings, **settings: Any) -> Any:
        specs = [ModelSpec(name=f"m{number}", engine="lexical", pool=pool) for number, pool in enumerate(pools)]
        return make_launcher(AutoscalerSettings(**settings), specs, [])

    def test_none_only_observes(self) -> None:
        assert isinstance(self.make(PoolSettings(), launcher="none"), ObserveOnlyLauncher)

    @pytest.mark.parametrize(("for_all", "models"), [(False, {"m1"}), (True, {"m0", "m1"})])
    def test_a_standby_serves_the_models_that_ask_for_it_or_all(self, for_all: bool, models: set[str]) -> None:
        launcher = self.make(PoolSettings(), PoolSettings(standby=True), standby=for_all)
        try:
            assert isinstance(launcher, LocalLauncher)
            assert launcher._options.standby_models == models
            assert launcher._standby.current is not None
        finally:
            launcher.close(lambda: True)

    def test_without_such_models_there_is_no_standby(self) -> None:
        launcher = self.make(PoolSettings())
        assert launcher._standby.current is None
        launcher.close(lambda: True)


def test_an_infinite_drain_time_is_rejected() -> None:
    with pytest.raises(ConfigurationError, match="RERANKQ_DRAIN_SECONDS"):
        AutoscalerSettings.from_environment({"RERANKQ_DRAIN_SECONDS": "inf"})


@pytest.mark.parametrize("signals", [1, 2], ids=["one signal", "two signals"])
def test_the_process_keeps_min_workers_running_and_stops_them_on_a_signal(
    tmp_path: Path, redis_url: str, redis_client: Any, signals: int
) -> None:
    environment = os.environ | {
        "RERANKQ_MODELS_FILE": write_models(tmp_path, pool={"min": 1}),
        "REDIS_URL": redis_url,
    }
    command = [sys.executable, "-m", "worker.autoscaler"]
    child = ChildProcess("autoscaler", command, tmp_path / "autoscaler.log", environment)
    try:
        wait_until(lambda: b'"ready"' in b"".join(redis_client.hvals(pool_keys.workers(MODEL))), seconds=30)
        for _ in range(signals):
            os.kill(child.pid, signal.SIGTERM)
        signaled_at = time.monotonic()
        wait_until(lambda: child.exit_status is not None, seconds=20)
        assert time.monotonic() - signaled_at < 5
        assert child.exit_status == 0
        assert redis_client.hvals(pool_keys.workers(MODEL)) == []
        assert "min is 1: starting a worker" in child.last_lines(40)
    finally:
        child.kill()


@pytest.mark.parametrize("heavy", ["torch", "vllm", "transformers", "celery"])
def test_no_heavy_module_is_imported(heavy: str) -> None:
    program = f"import sys, worker.autoscaler.__main__; sys.exit('{heavy}' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0
