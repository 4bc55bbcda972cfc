"""Curves of a recording as SVG: one row each, all on the same axis of time."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

ROW, GAP = 56, 26  # pixels: height of a row, space above it for its name
MOST = 4000  # points of a curve: of longer ones the peaks stay
BREAK = 3.0  # seconds without a point over which no line is drawn
SCALE = 14  # pixels a second

Points = Sequence[tuple[float, float]]


def peaks(points: Points, most: int = MOST) -> Points:
    """At most about so many of them: the highest of each run."""
    if len(points) <= most:
        return points
    run = -(-len(points) // most)
    return [max(points[k : k + run], key=lambda point: point[1]) for k in range(0, len(points), run)]


def _runs(points: Points) -> list[Points]:
    """Cut where nothing came for long."""
    cuts = [k for k in range(1, len(points)) if points[k][0] - points[k - 1][0] > BREAK]
    return [points[start:end] for start, end in zip([0, *cuts], [*cuts, len(points)])]


class Chart:
    """Rows are added from top to bottom; `svg` is the whole of it, `width` pixels wide."""

    def __init__(self, seconds: float) -> None:
        self.width = max(900, round(seconds * SCALE))
        self._scale = self.width / max(seconds, 1e-3)
        self._parts: list[str] = []
        self._height = 0

    def row(
        self,
        name: str,
        curves: Sequence[tuple[str, Points]],
        top: float,
        lines: Sequence[tuple[float, str]] = (),
        marks: Sequence[tuple[float, str, str]] = (),
    ) -> None:
        """`curves`: (CSS class, points); `top`: the value at the upper edge; `lines`: (value, name) drawn across; `marks`:
        (time, CSS class, words) drawn from top to bottom.
        """
        base = self._height + GAP + ROW
        self._height = base
        self._parts.append(f'<text class="name" x="4" y="{base - ROW - 7}">{escape(name)}</text>')
        self._parts.append(f'<rect class="row" x="0" y="{base - ROW}" width="{self.width}" height="{ROW}"/>')
        for time, kind, words in marks:
            x = f"{time * self._scale:.1f}"
            self._parts.append(
                f'<line class="mark {kind}" x1="{x}" x2="{x}" y1="{base - ROW}" y2="{base}"><title>{escape(words)}</title></line>'
            )
        for value, words in lines:
            y = f"{base - ROW * min(value / top, 1):.1f}"
            self._parts.append(f'<line class="limit" x1="0" x2="{self.width}" y1="{y}" y2="{y}"/>')
            self._parts.append(
                f'<text class="limit" x="{self.width - 4}" y="{float(y) - 3:.1f}">{escape(words)}</text>'
            )
        for kind, points in curves:
            for run in _runs(peaks(points)):
                path = " ".join(
                    f"{time * self._scale:.1f},{base - ROW * min(max(value, 0) / top, 1):.1f}" for time, value in run
                )
                self._parts.append(f'<polyline class="{kind}" points="{path}"/>')

    @property
    def svg(self) -> str:
        ticks = list(range(0, int(self.width / self._scale) + 1, 5))
        axis = "".join(
            f'<text class="tick" x="{second * self._scale:.0f}" y="{self._height + 14}">{second // 60}:{second % 60:02}</text>'
            for second in ticks
        )
        return (
            f'<svg id="chart" width="{self.width}" height="{self._height + 20}" data-scale="{self._scale:.6f}">'
            f'{"".join(self._parts)}{axis}<line id="now" x1="0" x2="0" y1="0" y2="{self._height}"/></svg>'
        )
