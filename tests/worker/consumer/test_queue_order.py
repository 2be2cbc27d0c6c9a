from typing import Any

from kombu.utils.scheduling import cycle_by_name

from shared.contracts import WorkClass
from shared.keys import PREFIX, queue_keys
from tests.shared.support import MODEL
from worker.consumer.queue_order import InteractiveFirst

INTERACTIVE = queue_keys.queue_name(MODEL, WorkClass.INTERACTIVE)
BATCH = queue_keys.queue_name(MODEL, WorkClass.BATCH)


def order_of(*names: str) -> Any:
    """Create the order as kombu does, and pass the queues as kombu does: in a set."""
    cycle_of: Any = cycle_by_name
    order = cycle_of(InteractiveFirst)()
    order.update(set(names))
    return order


def test_the_interactive_queue_stays_first_after_a_message_from_either_queue() -> None:
    order = order_of(BATCH, INTERACTIVE)
    for name in (INTERACTIVE, BATCH, INTERACTIVE):
        assert order.consume(2) == [INTERACTIVE, BATCH]
        assert order.rotate(name) == name


def test_names_with_the_key_prefix_are_sorted_too() -> None:
    names = [PREFIX + INTERACTIVE, PREFIX + BATCH]
    assert order_of(*names).consume(2) == names
    assert order_of(*names[::-1]).consume(2) == names


def test_a_model_named_batch_is_sorted_correctly() -> None:
    names = [queue_keys.queue_name("batch", work_class) for work_class in (WorkClass.INTERACTIVE, WorkClass.BATCH)]
    assert order_of(*names).consume(2) == names


def test_consume_returns_at_most_the_requested_number_of_names() -> None:
    order = order_of(BATCH, INTERACTIVE)
    assert order.consume(1) == [INTERACTIVE]
    order.update([])
    assert order.consume(2) == []
