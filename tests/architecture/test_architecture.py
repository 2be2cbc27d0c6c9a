"""Rules for the whole repository: imports between packages, where code belongs, and file sizes."""

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
def test_packages_are_imported_from_the_repository(package: str) -> None:
    """Another installed package named `api` or `shared` must not shadow this repository's."""
    location = importlib.import_module(package).__file__
    assert location is not None
    assert Path(location).parent == ROOT / package


def test_import_contracts_are_kept() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    outcome = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert outcome.returncode == 0, outcome.stdout


def test_client_works_without_the_other_packages(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "client", tmp_path / "client")
    forbidden = "{'api', 'worker', 'shared', 'infra', 'redis', 'pydantic'}"
    program = f"import sys, client.__main__; sys.exit(bool({forbidden} & set(sys.modules)))"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, timeout=60, check=False)
    assert process.returncode == 0


def test_three_files_import_vllm() -> None:
    pattern = re.compile(r"^\s*(from|import) vllm\b", re.MULTILINE)
    files = [path for package in PACKAGES for path in sources(package) if pattern.search(path.read_text())]
    assert sorted(files) == [
        ROOT / "worker/engines/vllm" / name for name in ("core_engine.py", "engine.py", "model.py")
    ]


@pytest.mark.parametrize("heavy", ["torch", "vllm", "transformers"])
def test_api_starts_without_model_libraries(heavy: str) -> None:
    program = f"import sys, api.__main__, infra.local.__main__; sys.exit('{heavy}' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60, check=False).returncode == 0


def test_key_prefix_appears_in_one_file() -> None:
    pattern = re.compile(r"""["']rerankq:""")
    files = [path for package in PACKAGES for path in sources(package) if pattern.search(path.read_text())]
    assert files == [ROOT / "shared/keys/__init__.py"]


def test_every_module_has_a_docstring() -> None:
    undocumented = [path for package in PACKAGES for path in sources(package) if not path.read_text().startswith('"""')]
    assert undocumented == []


def test_files_are_short_and_none_is_named_utils() -> None:
    paths = [path for package in PACKAGES for path in sources(package)]
    assert [path for path in paths if len(path.read_text().splitlines()) > 300] == []
    assert [path for path in paths if path.stem in ("utils", "helpers", "common", "misc")] == []


def test_every_lua_file_documents_its_result() -> None:
    for script in (ROOT / "shared/store/lua").glob("[a-z]*.lua"):
        header = script.read_text()
        assert header.startswith("-- "), script
        assert re.search(r"^-- returns ", header, re.MULTILINE), script
