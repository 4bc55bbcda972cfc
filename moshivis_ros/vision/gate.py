"""The gate of the cross-attention (arXiv 2503.15633) on a scale of 0 (not looking) to 1 (looking)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from moshivis_ros.errors import ConfigError

# Share of the range by which the quantiles may move in one 80 ms frame. A running minimum and maximum
# would let a single outlier close the gate for good; at this pace a bound needs minutes to cross its range.
RATE = 0.002


@dataclass(frozen=True)
class GateNormaliser:
    """Raw gate -> 0..1 between slow 5 % and 95 % quantiles, within half to twice of the checkpoint's own.

    gate_low, gate_high: of the checkpoint's config, raw; low, high: the quantiles now (None: as those).
    """

    gate_low: float
    gate_high: float
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.gate_low < self.gate_high:
            raise ConfigError(f"0 <= gate_low < gate_high, not {self.gate_low}, {self.gate_high}")

    def update(self, gate: float, has_image: bool) -> tuple[GateNormaliser, float]:
        """One frame: the normaliser to use for the next one, and this gate normalised (0 without an image).

        Frames without an image and values that are not finite teach nothing.
        """
        if not has_image or not math.isfinite(gate):
            return self, 0.0
        low = self.gate_low if self.low is None else self.low
        high = self.gate_high if self.high is None else self.high
        normalised = min(1.0, max(0.0, (gate - low) / (high - low)))

        span = self.gate_high - self.gate_low
        low += RATE * span * (0.05 if gate > low else -0.95)
        high += RATE * span * (0.95 if gate > high else -0.05)
        low = min(max(low, self.gate_low / 2), self.gate_low * 2)
        high = min(max(high, self.gate_high / 2), self.gate_high * 2)
        if high - low < span / 4:  # half and twice may overlap where low and high are close
            return self, normalised
        return GateNormaliser(self.gate_low, self.gate_high, low, high), normalised
