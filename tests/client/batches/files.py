"""Writes input files of batches, and reads output files."""

import json
from pathlib import Path
from typing import Any


def write_batch(path: Path, count: int, word: str = "word") -> None:
    lines = [
        {"custom_id": f"c{number}", "query": f"{word}{number}", "documents": [f"{word}{number}", f"{word}{number + 1}"]}
        for number in range(count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def rows(path: Path) -> list[dict[str, Any]]:
    return sorted((json.loads(line) for line in path.read_text().splitlines()), key=lambda row: int(row["line"]))
