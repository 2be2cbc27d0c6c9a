"""The autoscaler's settings."""

from typing import Annotated, Literal

from pydantic import Field

from shared.settings import Seconds, Settings

LauncherKind = Literal["processes", "none"]


class AutoscalerSettings(Settings):
    """Settings from the environment (RERANKQ_*) and the command line.

    - `model`: the one model to serve; by default all models of the models file.
    - `engine`: overrides the engine that the models file names.
    - `launcher`: `processes` starts workers on this machine; `none` only logs what it would do.
    - `capacity`: the maximum number of workers on this machine, of all models together. By default the number of GPUs
      divided by those that the largest model spans; without a GPU only the models' own limits apply.
    - `standby`: start workers of every model from a standby, also of models whose entry does not ask for one.
    - `start_seconds`: a worker that is not ready by then counts as failed.
    - `drain_seconds`: the drain time of the workers. A worker that exceeds it is killed after a grace period.
    """

    model: str | None = None
    engine: str | None = None
    launcher: LauncherKind = "processes"
    capacity: Annotated[int, Field(ge=1, le=1024)] | None = None
    standby: bool = False
    start_seconds: Seconds = 1800.0
    drain_seconds: float = Field(default=20.0, ge=0, le=86_400, allow_inf_nan=False)
