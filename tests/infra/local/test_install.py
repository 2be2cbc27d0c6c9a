"""The installer's checks: installed locks, complete environments, supported interpreters. No network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from infra.local import install
from infra.local.progress import Pip


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """A folder with the files that the installer checks in an environment."""
    venv = tmp_path / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(sys.executable)
    (venv / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.7\n")
    (venv / ".whole").write_text(install.identity(venv))
    return venv


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    lock = tmp_path / "api.txt"
    lock.write_text("redis==8.1.0 --hash=sha256:00\n")
    return lock


def put_stamp(venv: Path, lock: Path) -> None:
    (venv / f".stamp-{lock.stem}").write_text(install.stamp(venv, lock))


def test_a_lock_without_a_stamp_is_missing(venv: Path, lock: Path) -> None:
    assert install.missing(venv, [lock]) == [lock]


def test_a_stamped_lock_is_installed(venv: Path, lock: Path) -> None:
    put_stamp(venv, lock)
    assert install.missing(venv, [lock]) == []


def test_a_changed_lock_is_missing_again(venv: Path, lock: Path) -> None:
    put_stamp(venv, lock)
    lock.write_text("redis==8.1.1 --hash=sha256:00\n")
    assert install.missing(venv, [lock]) == [lock]


def test_stamp_of_another_python_version_is_invalid(venv: Path, lock: Path) -> None:
    put_stamp(venv, lock)
    (venv / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.12.1\n")
    assert install.missing(venv, [lock]) == [lock]


def test_a_moved_environment_is_not_whole(venv: Path, lock: Path) -> None:
    put_stamp(venv, lock)
    moved = venv.rename(venv.with_name("elsewhere"))
    assert not install.is_whole(moved)
    assert install.missing(moved, [lock]) == [lock]


def test_an_environment_without_its_python_is_not_whole(venv: Path) -> None:
    (venv / "bin" / "python").unlink()
    (venv / "bin" / "python").symlink_to(venv / "nowhere")
    assert not install.is_whole(venv)


def test_an_environment_is_not_whole_while_pip_installs(venv: Path) -> None:
    Pip(venv, 1).feed(b"Installing collected packages: vine")
    assert not install.is_whole(venv)


def test_environment_of_pip_excludes_the_users_python_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV", "PIP_TARGET"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("PIP_FIND_LINKS", "kept")
    environment = install.environment()
    assert not {"PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV", "PIP_TARGET"} & environment.keys()
    assert environment["PIP_FIND_LINKS"] == "kept"


def fake_python(folder: Path, name: str, output: str) -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\nprintf '{output}'\n")
    path.chmod(0o755)
    return str(path)


def test_supported_interpreter_on_the_path_replaces_an_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", fake_python(tmp_path, "python3", "3.8\\nvenv\\n"))
    monkeypatch.setenv("PATH", str(tmp_path))
    good = fake_python(tmp_path, "python3.12", "3.12\\nvenv\\n")
    fake_python(tmp_path, "python3.11", "")  # a shim without an installed version
    assert install.pick_python() == good


def test_missing_interpreter_is_refused_with_the_supported_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", fake_python(tmp_path, "python3", "3.8\\nvenv\\n"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(install.Refused, match=r"needs Python 3\.11, 3\.12, 3\.13"):
        install.pick_python()


def test_python_without_venv_is_refused_with_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", fake_python(tmp_path, "python3", "3.11\\n"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(install.Refused, match="python3-venv"):
        install.pick_python()


def test_locks_of_every_set_exist() -> None:
    for name, locks in install.SETS.items():
        for lock in locks:
            assert (install.ROOT / "requirements" / f"{lock}.txt").is_file(), name


def test_unknown_set_is_refused() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "infra.local.install", "--with", "nonsense"],
        cwd=install.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert "nonsense" in run.stderr


def test_each_set_of_clients_has_its_own_environment() -> None:
    folders = {name: install.environment_folder(name) for name in install.SETS}
    assert folders["run"] == folders["test"] == install.ROOT / ".venv"
    clients = {folder for name, folder in folders.items() if name.startswith("clients-")}
    assert clients == {install.ROOT / f".venv-{name}" for name in install.SETS if name.startswith("clients-")}
    assert len(clients) == 4


def test_each_compared_system_has_its_own_environment() -> None:
    peers = [name for name in install.SETS if name.startswith("peers-")]
    assert {install.environment_folder(name) for name in peers} == {install.ROOT / f".venv-{name}" for name in peers}
    assert len(peers) == 3
