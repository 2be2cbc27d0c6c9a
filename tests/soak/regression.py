"""Slopes of measured series, and whether they are flat."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import linear_regression, median

HOUR_SECONDS = 3600.0


@dataclass(slots=True)
class Series:
    """Values over time. `times` are seconds since the start of the run."""

    name: str
    unit: str
    times: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, seconds: float, value: float) -> None:
        self.times.append(seconds)
        self.values.append(value)

    def after(self, seconds: float) -> "Series":
        """The part after the warm-up."""
        kept = [(time, value) for time, value in zip(self.times, self.values, strict=True) if time >= seconds]
        return Series(self.name, self.unit, [time for time, _ in kept], [value for _, value in kept])

    @property
    def slope(self) -> float:
        """The change per hour, by linear regression. 0 with fewer than two values."""
        if len(set(self.times)) < 2:
            return 0.0
        return linear_regression(self.times, self.values).slope * HOUR_SECONDS

    @property
    def middle(self) -> float:
        return median(self.values) if self.values else 0.0


def growth_of_thirds(values: Sequence[float]) -> float:
    """The median of the last third divided by that of the first; 1.0 when there are fewer than three values."""
    third = len(values) // 3
    return median(values[-third:]) / median(values[:third]) if third else 1.0
