"""A sign of life for a manager of nodes such as nav2's, in the protocol of the package bond (untried with a real one)."""

from __future__ import annotations

import uuid

from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.node import Node

from moshivis_ros.nodes.messages import interface_type

PERIOD = 0.1  # seconds between two signs
TIMEOUT = 4.0  # seconds without one after which the manager takes the node for dead


class Bond:
    """Says on the topic /bond that the node lives, from construction to close(). Raises ConfigError where the package
    bond is not installed.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._type = interface_type("bond/msg/Status")
        self._instance = str(uuid.uuid4())
        self._publisher = node.create_publisher(self._type, "/bond", 10)
        self._timer = node.create_timer(PERIOD, self._say, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def close(self) -> None:
        self._node.destroy_timer(self._timer)
        self._say(active=False)
        self._node.destroy_publisher(self._publisher)

    def _say(self, active: bool = True) -> None:
        status = self._type(id=self._node.get_name(), instance_id=self._instance, active=active)
        status.header.stamp = self._node.get_clock().now().to_msg()
        status.heartbeat_timeout, status.heartbeat_period = TIMEOUT, PERIOD
        self._publisher.publish(status)
