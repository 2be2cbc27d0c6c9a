"""Keys of batches and files: their records, a batch's segments and runner."""

from shared.keys import PREFIX

OPEN_BATCHES = f"{PREFIX}open_batches"


def batch(batch_id: str) -> str:
    return f"{PREFIX}batch:{batch_id}"


def segments(batch_id: str) -> str:
    return f"{batch(batch_id)}:segments"


def runner(batch_id: str) -> str:
    return f"{batch(batch_id)}:runner"


def open_batch(batch_id: str) -> str:
    """A batch to which requests can be added."""
    return f"{PREFIX}open_batch:{batch_id}"


def collected_requests(batch_id: str) -> str:
    return f"{open_batch(batch_id)}:requests"


def owned_open_batches(owner: str) -> str:
    return f"{PREFIX}batches:open:{owner}"


def owned(kind: str, owner: str) -> str:
    """The list of an owner's batches of one kind (shared.ledger.batch_record.BatchKind)."""
    return f"{PREFIX}batches:{kind}:{owner}"


def file(file_id: str) -> str:
    return f"{PREFIX}file:{file_id}"


def owned_files(owner: str) -> str:
    return f"{PREFIX}files:{owner}"
