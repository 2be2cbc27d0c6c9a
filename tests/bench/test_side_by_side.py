"""Two services at once, compared in short blocks."""

import pytest

from bench.side_by_side import main


@pytest.mark.parametrize("arguments", [["--set", "RERANKQ_LOG_LEVEL=INFO"], ["--tracing"]])
def test_two_services_are_compared(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--blocks", "1", *arguments]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("| service | median call, ms |")
    assert [row.count("|") for row in printed[2:4]] == [6, 6]
    assert "times as long, the median of 1 blocks." in printed[-1]
