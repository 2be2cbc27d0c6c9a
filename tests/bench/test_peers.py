"""The comparison with other software: the loop that calls a library, the table, and the order of the peers."""

import json
from pathlib import Path

import pytest

from bench import models
from bench.cases import Measured
from bench.peers import bare_loop
from bench.peers.__main__ import LOADS, LOOP_LOADS, PEERS, parse, table
from bench.servers import OURS, THEIRS


def word_overlap(pairs: list[tuple[str, str]]) -> list[float]:
    return [len(set(query.split()) & set(document.split())) / 10 for query, document in pairs]


def test_the_loop_scores_new_pairs_of_the_given_lengths(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[tuple[str, str]] = []

    def score(pairs: list[tuple[str, str]]) -> list[float]:
        seen.extend(pairs)
        return word_overlap(pairs)

    order = {"model": str(models.bundled()), "loads": [[32, 100], [1, 5]], "seconds": 0.05, "seed": 1}
    bare_loop.measure(order, score)
    long, short = json.loads(capsys.readouterr().out)
    assert long["pairs"] >= 32
    assert long["pairs"] % 32 == 0
    assert all(each["seconds"] >= 0.05 and each["p50_ms"] > 0 for each in (long, short))
    assert {len(document.split()) for _, document in seen} == {100, 5}
    assert {len(query.split()) for query, _ in seen} == {10}
    assert len({document for _, document in seen}) == len(seen)


def test_a_library_that_loses_scores_fails() -> None:
    order = {"model": str(models.bundled()), "loads": [[8, 5]], "seconds": 0.05, "seed": 1}
    with pytest.raises(RuntimeError, match="7 scores for 8 pairs"):
        bare_loop.measure(order, lambda pairs: word_overlap(pairs)[1:])


def test_the_table_has_a_row_for_each_peer_and_a_dash_for_what_a_loop_has_not() -> None:
    found = Measured()
    for load in LOADS:
        for rate in (190.0, 210.0):
            found.add(load, OURS, rate)
    for load in LOOP_LOADS:
        found.add(load, "onnx", 12.34)
    found.failures.append("round 1 of 1: Infinity: it did not start")
    lines = table(found, [OURS, "onnx", "infinity"]).splitlines()
    assert lines[0].startswith("| | 32 x 20 x 100, pairs/s |")
    assert lines[0].endswith("| 1 x 1 x 100, ms p50 | spread |")
    assert lines[2] == "| rerankq | 200 | 200 | 200 | 200 | 200 | 10% |"
    assert lines[3] == "| ONNX Runtime int8, a loop | 12.3 | 12.3 | - | - | 12.3 | 0% |"
    assert lines[4] == "| Infinity | - | - | - | - | - | 0% |"
    assert lines[-1] == "- round 1 of 1: Infinity: it did not start"


def test_every_loop_load_is_a_load_of_the_servers() -> None:
    for name, (_, words) in LOOP_LOADS.items():
        shape = LOADS[name].shape
        assert shape is not None
        assert shape[2] == words


def test_this_service_and_vllms_server_are_among_the_peers() -> None:
    assert {OURS, THEIRS} < set(PEERS)
    assert parse(["--only", OURS, "infinity"]).only == [OURS, "infinity"]
    with pytest.raises(SystemExit):
        parse(["--only", "nobody"])


def test_loops_run_outside_of_this_environment() -> None:
    """They may import nothing of this repository that needs its packages."""
    for module in ("bare_loop", "onnx_loop", "sentence_transformers_loop"):
        source = (Path(bare_loop.__file__).parent / f"{module}.py").read_text()
        imported = {line.split()[1] for line in source.splitlines() if line.startswith("from bench")}
        assert imported <= {"bench.words", "bench.peers.bare_loop"}
