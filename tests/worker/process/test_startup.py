import gc
import logging
import os
import re
import sys
import time
from pathlib import Path

import pytest

from shared.models import ModelSpec
from worker.process.startup import StartTimer, deferred_gc, prefetch_weights, process_age, weight_files


def test_process_age_starts_with_the_process() -> None:
    before = process_age()
    time.sleep(0.1)
    assert 0.08 <= process_age() - before <= 5
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-c", "import worker.process.startup as s; raise SystemExit(0 <= s.process_age() < 20)"],
        os.environ | {"PYTHONPATH": "."},
    )
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1


def test_the_stages_add_up_to_the_total() -> None:
    stages = StartTimer()
    time.sleep(0.05)
    stages.mark("import")
    time.sleep(0.02)
    stages.mark("load")
    total, stage_list = re.fullmatch(r"([\d.]+) s \((.+)\)", str(stages)).groups()  # type: ignore[union-attr]
    parts = dict(part.rsplit(" ", 1) for part in stage_list.split(", "))
    assert list(parts) == ["process", "import", "load"]
    assert float(parts["import"]) >= 0.05
    assert sum(map(float, parts.values())) == pytest.approx(float(total), abs=0.03)


def test_deferred_gc_disables_collection_and_freezes_existing_objects() -> None:
    frozen = gc.get_freeze_count()
    try:
        with deferred_gc():
            assert not gc.isenabled()
            held = [object() for _ in range(1000)]
            held_list = [held]
        assert gc.isenabled()
        assert gc.get_freeze_count() > frozen
        assert held_list
    finally:
        gc.unfreeze()


def test_collection_is_enabled_again_after_an_exception() -> None:
    with pytest.raises(RuntimeError), deferred_gc():
        raise RuntimeError
    assert gc.isenabled()
    gc.unfreeze()


class TestWeightFiles:
    def test_safetensors_of_a_folder_are_found(self, tmp_path: Path) -> None:
        for name in ("model-2.safetensors", "model-1.safetensors", "pytorch_model.bin", "config.json"):
            (tmp_path / name).touch()
        found = weight_files(ModelSpec(name="m", source=str(tmp_path)))
        assert [path.name for path in found] == ["model-1.safetensors", "model-2.safetensors"]

    def test_weights_in_the_old_format_are_found(self, tmp_path: Path) -> None:
        (tmp_path / "pytorch_model.bin").touch()
        assert [path.name for path in weight_files(ModelSpec(name="m", source=str(tmp_path)))] == ["pytorch_model.bin"]

    @pytest.mark.parametrize("revision", [None, "main", "abc123"])
    def test_weights_in_the_hub_cache_are_found(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, revision: str | None
    ) -> None:
        monkeypatch.setenv("HF_HOME", str(tmp_path))
        monkeypatch.delenv("HF_HUB_CACHE", raising=False)
        model = tmp_path / "hub" / "models--BAAI--bge"
        snapshot = model / "snapshots" / "abc123"
        snapshot.mkdir(parents=True)
        (model / "refs").mkdir()
        (model / "refs" / "main").write_text("abc123\n")
        (snapshot / "model.safetensors").touch()
        spec = ModelSpec(name="BAAI/bge", revision=revision)
        assert weight_files(spec) == [snapshot / "model.safetensors"]

    @pytest.mark.parametrize("source", ["unknown/model", "package:no_such_package/model"])
    def test_a_missing_model_has_no_weight_files(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
    ) -> None:
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
        assert weight_files(ModelSpec(name="m", source=source)) == []

    def test_weight_files_are_read_ahead(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        weights = tmp_path / "model.safetensors"
        weights.write_bytes(b"weights")
        calls: list[tuple[str, int, int, int]] = []

        def record(number: int, offset: int, length: int, advice: int) -> None:
            calls.append((os.readlink(f"/proc/self/fd/{number}"), offset, length, advice))

        monkeypatch.setattr(os, "posix_fadvise", record)
        prefetch_weights(ModelSpec(name="m", source=str(tmp_path))).join(timeout=5)
        # A length of 0 means the whole file.
        assert calls == [(str(weights), 0, 0, os.POSIX_FADV_WILLNEED)]

    def test_an_unreadable_weight_file_is_only_logged(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        (tmp_path / "model.safetensors").symlink_to(tmp_path / "missing")
        with caplog.at_level(logging.DEBUG):
            prefetch_weights(ModelSpec(name="m", source=str(tmp_path))).join(timeout=5)
        assert "cannot be read ahead" in caplog.text
