"""The autoscaler's settings."""

from typing import Annotated, Literal

from pydantic import Field

from shared.settings import Seconds, Settings

Launching = Literal["processes", "none"]


class AutoscalerSettings(Settings):
    """`model`: the one that is served here, by default all of the models file; `engine` overrides the file's.

    `launcher`: `processes` starts workers on this machine; `none` only says what it would do, and others act.

    `capacity`: how many workers this machine has room for, of all models together; by default one for each GPU, and
    without a GPU as many as the models' own limits allow. `standby`: keep a process ready to become a worker also for
    models whose entry does not ask for one. `start_seconds`: a worker that is not ready by then counts as failed.
    `drain_seconds` is the workers' own: some time after it one that was told to stop is killed.
    """

    model: str | None = None
    engine: str | None = None
    launcher: Launching = "processes"
    capacity: Annotated[int, Field(ge=1, le=1024)] | None = None
    standby: bool = False
    start_seconds: Seconds = 1800.0
    drain_seconds: float = Field(default=20.0, ge=0, le=86_400, allow_inf_nan=False)
