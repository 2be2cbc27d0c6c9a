import pytest

from shared import keys
from shared.contracts import WorkClass


def test_every_name_starts_with_the_prefix() -> None:
    names = [
        keys.FINISHED_CHANNEL,
        keys.API_KEYS,
        keys.job("job-1"),
        keys.request("job-1"),
        keys.shards("job-1"),
        keys.results("job-1"),
        keys.outstanding("m"),
        keys.workers("m"),
        keys.queue("m", WorkClass.BATCH),
    ]
    assert all(name.startswith("rerankq:") for name in names)
    assert len(set(names)) == len(names)


def test_kombu_puts_the_prefix_before_a_queue_itself() -> None:
    assert keys.queue_name("m", WorkClass.INTERACTIVE) == "queue:m:interactive"
    assert keys.queue("m", WorkClass.INTERACTIVE) == "rerankq:queue:m:interactive"


@pytest.mark.parametrize("work_class", WorkClass)
@pytest.mark.parametrize("model", ["m", "org/model-v2.5", "batch"])
def test_a_queue_tells_its_work_class(model: str, work_class: WorkClass) -> None:
    assert keys.work_class_of(keys.queue_name(model, work_class)) is work_class


def test_what_is_no_queue_has_no_work_class() -> None:
    with pytest.raises(ValueError, match="celery"):
        keys.work_class_of("celery")
