"""`python -m infra.metrics_reference` writes docs/metrics.md from the definitions in the code."""

import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from api.metrics.definitions import COUNTED, READ
from shared.metrics.definitions import Definition, Kind
from shared.metrics.work import POOL_PREFIX, WORK_METRICS, WORKER_PREFIX
from worker.autoscaler.metrics import AUTOSCALER_METRICS

PATH = Path("docs/metrics.md")

_HEAD = """# Metrics

Written by `python -m infra.metrics_reference` from the definitions in the code.

| who | where | metrics |
|---|---|---|
| API | `GET /metrics`, with a key of the scope `admin` | all that do not begin as the two below |
| worker | `RERANKQ_METRICS_PORT`, or the next free port | `rerankq_worker_*`: what this worker counted |
| autoscaler | `RERANKQ_METRICS_PORT`, or the next free port | `rerankq_autoscaler_*` |
| batch runner | with the API's; alone (`python -m api batches`) as a worker | `rerankq_batch_rows_total` and more |

A worker also adds what it counted to its pool's totals in Redis, every two seconds; the API shows them as
`rerankq_pool_*`. So it is enough to scrape the API. What is read from Redis is the same at every API: in queries use
`max by (...)`, not `sum`. What the API's processes count is summed over the processes of one address.

Histograms have buckets whose bounds are powers of two; each has `_bucket`, `_sum` and `_count`. Times are in seconds.
Labels never have a caller's text: a route is a pattern such as `/v1/jobs/{job_id}`, an outcome is `ok` or an error's
code.
"""


def reference() -> str:
    """The text of docs/metrics.md."""
    pools = [replace(each, name=POOL_PREFIX + each.name, labels=("model", *each.labels)) for each in WORK_METRICS]
    workers = [replace(each, name=WORKER_PREFIX + each.name) for each in WORK_METRICS]
    sections = [
        ("Counted by the API", COUNTED),
        ("Read from Redis by the API", READ),
        ("Counted by workers, summed over a pool", pools),
        ("Counted by workers, of each one", workers),
        ("Counted by the autoscaler", AUTOSCALER_METRICS),
    ]
    return _HEAD + "".join(f"\n## {title}\n{_table(definitions)}" for title, definitions in sections)


def _table(definitions: Iterable[Definition]) -> str:
    rows = [
        f"| `{each.exposed_name}` | {each.kind} | {_labels(each)} | {each.documentation}{_buckets(each)} |"
        for each in definitions
    ]
    return "\n".join(["| metric | type | labels | meaning |", "|---|---|---|---|", *rows]) + "\n"


def _labels(definition: Definition) -> str:
    return ", ".join(f"`{label}`" for label in definition.labels)


def _buckets(definition: Definition) -> str:
    if definition.kind is not Kind.HISTOGRAM:
        return ""
    return f"; buckets from {definition.buckets[0]:g} to {definition.buckets[-1]:g}"


def main() -> int:
    PATH.write_text(reference())
    return 0


if __name__ == "__main__":
    sys.exit(main())
