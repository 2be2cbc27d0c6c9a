import math
import re

from api.metrics.definitions import COUNTED, READ
from infra.metrics_reference import PATH, reference
from shared.metrics.definitions import Kind
from shared.metrics.work import POOL_PREFIX, WORK_METRICS, WORKER_PREFIX
from worker.autoscaler.metrics import AUTOSCALER_METRICS


def test_the_reference_of_metrics_is_what_the_code_defines() -> None:
    assert PATH.read_text() == reference(), "run `python -m infra.metrics_reference`"


def test_names_are_unique_and_as_prometheus_wants_them() -> None:
    work = [(prefix + each.name, each) for prefix in (POOL_PREFIX, WORKER_PREFIX) for each in WORK_METRICS]
    named = [(each.name, each) for each in (*COUNTED, *READ, *AUTOSCALER_METRICS)] + work
    names = [name for name, _ in named]
    assert len(set(names)) == len(names)
    for name, definition in named:
        assert re.fullmatch("rerankq_[a-z_]+", name)
        assert not name.endswith(("_total", "_bucket", "_count", "_sum"))
        if definition.kind is Kind.HISTOGRAM:
            assert name.endswith(("_seconds", "_tokens", "_prompts"))
            assert all(bound == 2 ** round(math.log2(bound)) for bound in definition.buckets)
