"""What a node says of itself on /diagnostics, once a second."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.node import Node

from moshivis_ros.nodes.interface import Interface

INTERFACE = Interface("/diagnostics", "publishes", "diagnostic_msgs/msg/DiagnosticArray", "once a second")


class Diagnostics:
    """Publishes what `report` returns, whose names get the node's in front."""

    def __init__(self, node: Node, report: Callable[[], Sequence[DiagnosticStatus]]) -> None:
        self._node, self._report = node, report
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # Not the node's clock: with use_sim_time a paused simulation would hide its own trouble.
        node.create_timer(1.0, self._on_second, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _on_second(self) -> None:
        array = DiagnosticArray(status=self._report())
        array.header.stamp = self._node.get_clock().now().to_msg()
        for entry in array.status:
            entry.name = f"{self._node.get_fully_qualified_name()}: {entry.name}"
        self._publisher.publish(array)
