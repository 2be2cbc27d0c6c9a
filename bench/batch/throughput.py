"""How fast batches run: against the client's own mode, against the bare engine, and with lines of one document."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench import models, servers
from bench.batch.context import Context
from bench.batch.inputs import DOCUMENT_WORDS, Inputs, Shape, check_client_rows
from bench.batch.report import Measurement
from bench.batch.service import running
from bench.generator import ROOT, EngineSpeed, MeasurementFailed, bare_engine
from bench.words import vocabulary
from infra.local.stack import Options

CLIENT_RATIO = 1.5
ENGINE_SHARE = 0.95
LINES_PER_SECOND = 1500
_DOCUMENTS = 100
_SEED = 1
_BARE_SERIAL = 100_000_000
"""Above the numbers of all lines."""


def pairs(context: Context) -> list[Measurement]:
    """A batch of long lines, and the first lines of the same file in the client's own mode."""
    shape, count = context.sizes.pairs, context.sizes.client_lines
    with context.running_lexical() as service:
        outcome = context.run_input(service, shape)
    first = context.inputs.first_lines(shape, count)
    # A service of its own: a cached score or a known key would save the client's work.
    with context.running_lexical() as service:
        context.tell(f"the client ranks {count:,} lines")
        client_seconds = _rank_by_client(service.stack.url, first, count, context)
    batch_rate, client_rate = shape.pairs / outcome.seconds, count * shape.documents / client_seconds
    ratio = batch_rate / client_rate
    return [
        Measurement(
            f"{shape.pairs:,} pairs ({shape.lines:,} lines x {shape.documents} documents), lexical: pairs/s of the "
            f"batch, against `client batch --mode client` on the first {count:,} lines",
            f"{batch_rate:,.0f} pairs/s, {ratio:.2f}x of {client_rate:,.0f}",
            f">= {CLIENT_RATIO:g}x",
            ratio >= CLIENT_RATIO,
            {
                "seconds": outcome.seconds,
                "client_seconds": client_seconds,
                "client_lines": count,
                "pairs_per_second_after_validation": outcome.pairs_per_second,
            },
        )
    ]


def _rank_by_client(url: str, source: Path, lines: int, context: Context) -> float:
    """The seconds that the command takes, its start included. Raises MeasurementFailed."""
    target, log = source.with_suffix(".ranked"), context.folder / "client.log"
    target.unlink(missing_ok=True)
    command = [sys.executable, "-m", "client", "batch", "--mode", "client", str(source), str(target), "--url", url]
    began = time.perf_counter()
    with log.open("wb") as output:
        try:
            subprocess.run(
                command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=context.deadline.left(),
                start_new_session=True,
                check=True,
            )
        except subprocess.SubprocessError as error:
            raise MeasurementFailed(f"the client's batch mode failed ({error}): {log.read_text()[-1000:]}") from None
    seconds = time.perf_counter() - began
    with target.open("rb") as rows:
        check_client_rows(rows, lines)
    return seconds


def lines(context: Context) -> list[Measurement]:
    """A batch of the shortest lines."""
    shape = context.sizes.lines
    with context.running_lexical() as service:
        outcome = context.run_input(service, shape)
    rate = shape.lines / outcome.seconds
    return [
        Measurement(
            f"{shape.lines:,} lines of one document, lexical: lines/s",
            f"{rate:,.0f} lines/s",
            f">= {LINES_PER_SECOND:,}",
            rate >= LINES_PER_SECOND,
            {"seconds": outcome.seconds, "pairs_per_second_after_validation": outcome.pairs_per_second},
        )
    ]


def engine(context: Context) -> list[Measurement]:
    """A batch with vLLM on the CPU, between two measurements of the bare engine on texts of the same lengths."""
    model = context.folder / "cross-encoder"
    context.tell("creating the cross-encoder")
    models.make_cross_encoder(model, context.folder / "model.log")
    before = _bare_engine(context, model, _BARE_SERIAL)
    shape = Shape(max(2, round(before.pairs_per_second * context.sizes.engine_seconds / _DOCUMENTS)), _DOCUMENTS)
    folder = context.folder / "vllm"
    folder.mkdir()
    # Every word is one token of this model, as in the bare engine.
    path = Inputs(folder, vocabulary(model, _SEED), _SEED).path(shape)
    options = Options(port=0, model=str(model), environment={"RERANKQ_LOG_LEVEL": "WARNING"})
    with running(options, context.deadline, context.tell) as service:
        context.tell(f"running {shape.lines:,} lines with {shape.documents} documents")
        outcome = service.run_batch(service.upload_file(path), shape)
    after = _bare_engine(context, model, 2 * _BARE_SERIAL)
    bare = [before.pairs_per_second, after.pairs_per_second]
    mean, rate = statistics.mean(bare), outcome.pairs_per_second
    spread = (max(bare) - min(bare)) / mean
    from_first = outcome.rate_from_first_row()
    note = "" if from_first is None else f"; {from_first / mean:.3f} from the first row"
    return [
        Measurement(
            f"{shape.pairs:,} pairs ({shape.lines:,} lines x {shape.documents} documents), vLLM on the CPU: pairs/s "
            "from the end of the validation to the last row, against the bare engine before and after",
            f"{rate:,.1f} pairs/s, {rate / mean:.3f} of {mean:,.1f} (spread {spread:.1%}){note}",
            f">= {ENGINE_SHARE:g}",
            rate >= ENGINE_SHARE * mean,
            {
                "pairs_per_second": rate,
                "pairs_per_second_from_first_row": from_first,
                "bare_pairs_per_second": bare,
                "seconds": outcome.seconds,
            },
        )
    ]


def _bare_engine(context: Context, model: Path, first: int) -> EngineSpeed:
    context.tell("measuring the bare engine")
    context.deadline.left()
    order = {
        "model": str(model),
        "seconds": context.sizes.bare_seconds,
        "words": [DOCUMENT_WORDS],
        "first": first,
        "seed": _SEED,
    }
    (found,) = bare_engine(order, servers.environment(context.folder), context.folder / "engine.log")
    return found
