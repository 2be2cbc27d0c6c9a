"""Draws one cycle of a pool: waiting requests in the upper panel, workers in the lower one, over the same time axis.

The SVG has a light and a dark color scheme, like that of bench/chart.py.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from statistics import median

from bench.chart import STYLE
from bench.cycle import Cycle, Sample

_WIDTH, _LEFT, _RIGHT = 760, 64, 24
_PANELS = {"requests waiting": (104, 204), "workers": (252, 332)}
_AXIS = 332
_HEIGHT = 396
_STEPS = tuple(step * 10**power for power in range(6) for step in (1, 2, 5))
_STYLE = f"""{STYLE}  .area {{ stroke-width: 1.5 }}
  .waiting {{ fill: #c2540a33; stroke: #c2540a }}
  .ready {{ fill: #0b6bcb55; stroke: #0b6bcb }}
  .starting {{ fill: #8b949e44; stroke: #8b949e; stroke-dasharray: 5 3 }}
  .stopping {{ fill: #8b949e44; stroke: #8b949e }}
  .note {{ font-size: 12px }}
  @media (prefers-color-scheme: dark) {{
    .waiting {{ fill: #f0883e44; stroke: #f0883e }}
    .ready {{ fill: #58a6ff55; stroke: #58a6ff }}
  }}
"""


def zero_one_zero(cycle: Cycle) -> str:
    """Return the SVG. Raises ValueError when the cycle has no samples."""
    if not cycle.samples:
        raise ValueError("no data to draw")
    frame = _Frame(cycle)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        'aria-label="One cycle of a pool: waiting requests and workers over time">',
        f"<style>{_STYLE}</style>",
        f'<rect class="background" width="{_WIDTH}" height="{_HEIGHT}" rx="8"/>',
        f'<text class="title" x="{_LEFT}" y="30">From no worker to one and back</text>',
        f'<text x="{_LEFT}" y="52">{_summary(cycle)}</text>',
        *_grid(frame),
        *_area(frame, "requests waiting", "waiting", lambda sample: sample.waiting),
        *_area(frame, "workers", "starting", lambda sample: sample.starting),
        *_area(frame, "workers", "ready", lambda sample: sample.ready),
        *_area(frame, "workers", "stopping", lambda sample: sample.stopping),
        *_notes(frame),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


class _Frame:
    """Maps seconds and counts to coordinates."""

    def __init__(self, cycle: Cycle) -> None:
        self.samples: Sequence[Sample] = cycle.samples
        self.end = cycle.samples[-1].at
        self._most = {
            "requests waiting": max(1, *(sample.waiting for sample in cycle.samples)),
            "workers": max(1, *(sample.starting + sample.ready + sample.stopping for sample in cycle.samples)),
        }

    def x(self, at: float) -> float:
        return _LEFT + at / self.end * (_WIDTH - _LEFT - _RIGHT)

    def y(self, panel: str, count: float) -> float:
        top, base = _PANELS[panel]
        return base - count / self._most[panel] * (base - top)

    def most(self, panel: str) -> int:
        return self._most[panel]


def _summary(cycle: Cycle) -> str:
    first = cycle.calls[0][1]
    warm = median(seconds for at, seconds in cycle.calls if at > cycle.calls[0][0] + first)
    return (
        f"The first request takes {first:.1f} s, later ones {warm * 1000:.0f} ms; "
        f"the worker stops after {cycle.idle_seconds:g} idle seconds."
    )


def _grid(frame: _Frame) -> Iterator[str]:
    right = _WIDTH - _RIGHT
    for panel, (top, base) in _PANELS.items():
        yield f'<text x="{_LEFT}" y="{top - 12}">{panel}</text>'
        step = next(step for step in _STEPS if frame.most(panel) / step <= 5)
        for count in range(0, frame.most(panel) + 1, step):
            y = frame.y(panel, count)
            yield f'<path class="grid" d="M{_LEFT} {y:.1f}H{right}"/>'
            yield f'<text x="{_LEFT - 10}" y="{y + 4:.1f}" text-anchor="end">{count}</text>'
        assert base <= _AXIS
    step = next(step for step in _STEPS if frame.end / step <= 15)
    for at in range(0, int(frame.end) + 1, step):
        yield f'<text x="{frame.x(at):.1f}" y="{_AXIS + 20}" text-anchor="middle">{at}</text>'
    yield f'<text x="{(_LEFT + right) / 2:.0f}" y="{_AXIS + 44}" text-anchor="middle">seconds</text>'


def _area(frame: _Frame, panel: str, style: str, count: Callable[[Sample], int]) -> Iterator[str]:
    """Yield one stepped area for each period in which the count is above 0."""
    base = frame.y(panel, 0)
    path: list[str] = []
    before = 0
    for sample in frame.samples:
        now = count(sample)
        if now == before:
            continue
        x, y = frame.x(sample.at), frame.y(panel, now)
        path.append(f"H{x:.1f}V{y:.1f}" if path else f"M{x:.1f} {base:.1f}V{y:.1f}")
        if now == 0:
            yield f'<path class="area {style}" d="{"".join(path)}Z"/>'
            path = []
        before = now
    if path:
        yield f'<path class="area {style}" d="{"".join(path)}H{frame.x(frame.end):.1f}V{base:.1f}Z"/>'


def _notes(frame: _Frame) -> Iterator[str]:
    """Label the areas of the lower panel."""
    for style, name in (("starting", "starting"), ("ready", "ready")):
        stretch = [(sample.at, following.at) for sample, following in pairwise(frame.samples) if getattr(sample, style)]
        if stretch:
            x, y = frame.x((stretch[0][0] + stretch[-1][1]) / 2), frame.y("workers", 0.5) + 4
            yield f'<text class="note" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{name}</text>'
