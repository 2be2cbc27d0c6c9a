"""Keys of pools: one model's outstanding work, load and workers."""

from shared.contracts import WorkClass
from shared.keys import PREFIX


def outstanding(model: str) -> str:
    return f"{PREFIX}pool:{model}:outstanding"


def deadlines(model: str) -> str:
    return f"{PREFIX}pool:{model}:deadlines"


def open_jobs(model: str, work_class: WorkClass) -> str:
    return f"{PREFIX}pool:{model}:jobs:{work_class}"


def load(model: str) -> str:
    return f"{PREFIX}pool:{model}:load"


def measurements(model: str) -> str:
    return f"{PREFIX}pool:{model}:measurements"


def workers(model: str) -> str:
    return f"{PREFIX}pool:{model}:workers"


def totals(model: str) -> str:
    return f"{PREFIX}pool:{model}:totals"


def turns(model: str, work_class: WorkClass) -> str:
    return f"{PREFIX}pool:{model}:turns:{work_class}"


def order(model: str, work_class: WorkClass, owner: str) -> str:
    return f"{PREFIX}pool:{model}:order:{work_class}:{owner}"


def backlog(model: str, work_class: WorkClass) -> str:
    return f"{PREFIX}pool:{model}:backlog:{work_class}"


def claims(model: str, worker: str) -> str:
    return f"{PREFIX}pool:{model}:claims:{worker}"


def owner_jobs(model: str) -> str:
    return f"{PREFIX}pool:{model}:owner_jobs"


def unpublished(model: str) -> str:
    return f"{PREFIX}pool:{model}:unpublished"


def job_counts(model: str) -> str:
    return f"{PREFIX}pool:{model}:job_counts"
