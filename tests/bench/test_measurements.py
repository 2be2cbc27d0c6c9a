"""The cases measured on our service with the lexical engine instead of a model, in real processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import models, servers
from bench.cases import CASES, LONG_WORDS
from bench.generator import MeasurementFailed
from bench.measurements import Measurements, Plan
from bench.peers import loops
from bench.servers import OURS, Server
from infra.local.stack import StackError
from shared.models import load_models
from tests.stacks import write_models

pytestmark = pytest.mark.slow


def lexical(folder: Path, delay_seconds: float = 0.0) -> dict[str, str]:
    """Settings of a service that needs no model and scores four shards at once, so that work queues."""
    models_file = write_models(folder, engine_args={"delay_seconds": delay_seconds})
    return {"RERANKQ_MODELS_FILE": models_file, "RERANKQ_CONCURRENCY": "4", "RERANKQ_LOG_LEVEL": "WARNING"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with servers.ours(None, lexical(tmp_path_factory.mktemp("lexical"))) as running:
        yield running


@pytest.fixture
def measurements() -> Measurements:
    plan = Plan(list(CASES), rounds=1, seconds=0.5, backlog=1000, seed=1)
    return Measurements(plan, models.bundled(), tell=lambda _: None)


def test_a_server_is_ready_once_it_has_scored(server: Server) -> None:
    assert 0.2 < server.first_score_seconds < 60
    assert servers.get(server.port, "/health")[0] == 200
    server.check()


def test_a_rate_and_a_latency_are_measured(server: Server, measurements: Measurements) -> None:
    measurements.plain(server, "b")
    measurements.plain(server, "e")
    rate, latency = measurements.measured.values_of("b", OURS)[0], measurements.measured.values_of("e", OURS)[0]
    assert rate > 20
    assert 0 < latency < 1000
    outside = measurements.measured.values_of("k", OURS)[0]
    assert 0 < outside <= latency
    assert {load["case"] for load in measurements.measured.loads} == {"b", "e"}


def test_the_workers_processor_time_is_measured_per_pair(server: Server, measurements: Measurements) -> None:
    measurements.plain(server, "o1")
    rate, used = measurements.measured.values_of("o1", OURS)[0], measurements.measured.values_of("o1-cpu", OURS)[0]
    # One core gives the worker at most a second of processor time a second; its threads may use others as well.
    assert 0 < used < 4000 / rate


def test_documents_beyond_the_models_limit_are_cut_and_scored(server: Server, measurements: Measurements) -> None:
    measurements.plain(server, "w")
    (load,) = measurements.measured.loads
    assert (load["case"], load["words"], load["failed"]) == ("w", LONG_WORDS, 0)


def test_a_case_fails_without_the_environment_of_its_library(
    tmp_path: Path, measurements: Measurements, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "ROOT", tmp_path)
    with pytest.raises(MeasurementFailed, match=r"\.venv-peers-onnx is missing: `make bench`"):
        measurements.onnx(tmp_path, ["p1"])


def test_the_sweep_measures_every_number_of_connections(server: Server, measurements: Measurements) -> None:
    measurements.sweep(server)
    assert list(measurements.measured.curves[OURS]) == [1, 2, 4, 8, 16, 32, 64]


def test_known_documents_are_measured(server: Server, measurements: Measurements) -> None:
    measurements.known_documents(server)
    assert measurements.measured.values_of("i", OURS)[0] > 0


def test_calls_behind_a_backlog_are_measured(tmp_path: Path, measurements: Measurements) -> None:
    with servers.ours(None, lexical(tmp_path, delay_seconds=0.2)) as slow:
        measurements.behind_backlog(slow)
    assert measurements.measured.values_of("g", OURS)[0] >= 200


def test_a_repeated_request_without_a_worker_gives_a_value_or_a_miss(
    tmp_path: Path, measurements: Measurements
) -> None:
    with servers.ours(None, lexical(tmp_path)) as running:
        measurements.repeated_request(running)
    assert bool(measurements.measured.values_of("j", OURS)) != ("j" in measurements.measured.misses)


def test_a_backlog_that_ends_too_early_fails_the_case(server: Server, measurements: Measurements) -> None:
    with pytest.raises(MeasurementFailed, match="the backlog ended before"):
        measurements.behind_backlog(server)


def test_a_case_fails_when_its_server_has_ended(tmp_path: Path, measurements: Measurements) -> None:
    with servers.ours(None, lexical(tmp_path)) as running:
        running.stop_worker()
        with pytest.raises(StackError, match="worker-1"):
            measurements.plain(running, "e")


def test_both_servers_get_the_same_engine_arguments(tmp_path: Path) -> None:
    variables = servers.models_file(tmp_path / "model", tmp_path, servers.FLOAT32)
    spec = load_models(Path(variables["RERANKQ_MODELS_FILE"])).default
    assert (spec.name, spec.source, spec.engine_args) == ("model", str(tmp_path / "model"), {"dtype": "float32"})
    command = servers.command(tmp_path / "model", 8001, servers.FLOAT32)
    assert command[command.index("--dtype") + 1] == "float32"
    assert "--dtype" not in servers.command(tmp_path / "model", 8001, {})


def test_vllms_server_uses_every_core_and_writes_only_to_its_folder(tmp_path: Path) -> None:
    command = servers.command(tmp_path / "model", 8001, {"dtype": "bfloat16", "enforce_eager": True})
    assert command[1:3] == ["-m", "vllm.entrypoints.openai.api_server"]
    assert command[command.index("--port") + 1] == "8001"
    assert command[command.index("--dtype") + 1] == "bfloat16"
    assert "--enforce-eager" in command
    environment = servers.environment(tmp_path)
    assert environment["TMPDIR"] == str(tmp_path)
    assert environment["VLLM_CACHE_ROOT"].startswith(str(tmp_path))
    assert "0" in environment["VLLM_CPU_OMP_THREADS_BIND"].split(",")
