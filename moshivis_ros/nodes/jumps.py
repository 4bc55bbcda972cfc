"""A simulated clock that jumps, as the nodes meet it that play a recording by it."""

from __future__ import annotations

from rclpy.node import Node

FORWARD = 1_000_000_000  # nanoseconds in one step that are no slow motion any more


class Jumps:
    """Called with every time that is read (nanoseconds): by how much the clock jumped since the last call. 0 for the
    system's clock, which only goes on, however late the call.
    """

    def __init__(self, node: Node) -> None:
        self._simulated = bool(node.get_parameter("use_sim_time").value)
        self._last: int | None = None

    def __call__(self, now: int) -> int:
        step = 0 if self._last is None else now - self._last
        self._last = now
        return step if self._simulated and not 0 <= step < FORWARD else 0
