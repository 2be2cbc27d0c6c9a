from typing import Any

from kombu.utils.scheduling import cycle_by_name

from shared.contracts import WorkClass
from shared.keys import PREFIX, queue_keys
from tests.shared.support import MODEL
from worker.consumer.queue_order import InteractiveFirst

INTERACTIVE = queue_keys.queue_name(MODEL, WorkClass.INTERACTIVE)
BATCH = queue_keys.queue_name(MODEL, WorkClass.BATCH)


def order_of(*names: str) -> Any:
    """The order as kombu makes it, told of the queues as kombu tells it: in a set."""
    dialect_by_name: Any = cycle_by_name
    order = dialect_by_name(InteractiveFirst)()
    order.update(set(names))
    return order


def test_the_interactive_queue_is_asked_first_whoever_gave_the_last_message() -> None:
    order = order_of(BATCH, INTERACTIVE)
    for name in (INTERACTIVE, BATCH, INTERACTIVE):
        assert order.consume(2) == [INTERACTIVE, BATCH]
        assert order.rotate(name) == name


def test_names_with_the_prefix_are_told_apart_too() -> None:
    names = [PREFIX + INTERACTIVE, PREFIX + BATCH]
    assert order_of(*names).consume(2) == names
    assert order_of(*names[::-1]).consume(2) == names


def test_a_model_that_is_called_batch_does_not_confuse_it() -> None:
    names = [queue_keys.queue_name("batch", work_class) for work_class in (WorkClass.INTERACTIVE, WorkClass.BATCH)]
    assert order_of(*names).consume(2) == names


def test_no_more_names_are_given_than_asked_for() -> None:
    order = order_of(BATCH, INTERACTIVE)
    assert order.consume(1) == [INTERACTIVE]
    order.update([])
    assert order.consume(2) == []
