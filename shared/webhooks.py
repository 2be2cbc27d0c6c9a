"""Webhooks as every package knows them: the events, and where a caller wants to be told of one. Talks to no store."""

from dataclasses import dataclass
from enum import StrEnum


class WebhookEvent(StrEnum):
    """What webhooks report."""

    JOB_SUCCEEDED = "job.succeeded"
    JOB_FAILED = "job.failed"
    JOB_CANCELED = "job.canceled"
    JOB_EXPIRED = "job.expired"
    BATCH_ENDED = "batch.ended"


class WebhookForm(StrEnum):
    """The body that a receiver expects."""

    STANDARD = "standard"
    """Standard Webhooks' type, timestamp and data."""
    RUNPOD = "runpod"
    """The status that RunPod's API returns for a job."""


@dataclass(frozen=True, slots=True)
class WebhookTarget:
    """Where one request's caller wants to be told of its end.

    `events` empty: all of them. `secret` signs the deliveries (`whsec_...`); None: the default secret of the caller's
    key.
    """

    url: str
    events: tuple[WebhookEvent, ...] = ()
    secret: str | None = None
    form: WebhookForm = WebhookForm.STANDARD
