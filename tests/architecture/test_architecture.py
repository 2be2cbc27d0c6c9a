"""The walls of the house: who may import whom, where things lie, how large they may grow."""

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("api", "worker", "shared", "infra", "client")


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_are_imported_from_the_projects_root(package: str) -> None:
    """A stranger's package named `api` or `shared` on the path must not take ours' place."""
    location = importlib.import_module(package).__file__
    assert location is not None
    assert Path(location).parent == ROOT / package


def test_the_import_contracts_hold() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    outcome = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert outcome.returncode == 0, outcome.stdout


def test_the_client_works_where_nothing_else_of_ours_is(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "client", tmp_path / "client")
    ours = "{'api', 'worker', 'shared', 'infra', 'redis', 'pydantic'}"
    program = f"import sys, client.__main__; sys.exit(bool({ours} & set(sys.modules)))"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, timeout=60, check=False)
    assert ended.returncode == 0


def test_exactly_one_file_imports_vllm() -> None:
    pattern = re.compile(r"^\s*(from|import) vllm\b", re.MULTILINE)
    files = [path for package in PACKAGES for path in sources(package) if pattern.search(path.read_text())]
    assert files == [ROOT / "worker/engines/vllm/engine.py"]


@pytest.mark.parametrize("heavy", ["torch", "vllm", "transformers"])
def test_the_api_starts_without_a_model_library(heavy: str) -> None:
    program = f"import sys, api.__main__, infra.local.__main__; sys.exit('{heavy}' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60, check=False).returncode == 0


def test_every_key_is_spelled_in_one_file() -> None:
    spelled = re.compile(r"""["']rerankq:""")
    files = [path for package in PACKAGES for path in sources(package) if spelled.search(path.read_text())]
    assert files == [ROOT / "shared/keys/__init__.py"]


def test_every_module_says_what_it_is_for() -> None:
    silent = [path for package in PACKAGES for path in sources(package) if not path.read_text().startswith('"""')]
    assert silent == []


def test_files_stay_small_and_no_room_is_called_utils() -> None:
    paths = [path for package in PACKAGES for path in sources(package)]
    assert [path for path in paths if len(path.read_text().splitlines()) > 300] == []
    assert [path for path in paths if path.stem in ("utils", "helpers", "common", "misc")] == []


def test_every_lua_file_says_what_it_reads_and_answers() -> None:
    for script in (ROOT / "shared/store/lua").glob("[a-z]*.lua"):
        header = script.read_text()
        assert header.startswith("-- "), script
        assert "-- answers" in header, script
