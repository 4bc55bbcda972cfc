"""How the switches of a node stand, for others to see: ~/NAME, std_msgs/Bool, kept for those that come later."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Bool

PERIOD = 0.2  # seconds within which a change is told


class Switches:
    """`state`: of each switch by its name."""

    def __init__(self, node: Node, state: Callable[[], Mapping[str, bool]]) -> None:
        self._state = state
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._publishers = {name: node.create_publisher(Bool, f"~/{name}", latched) for name in state()}
        self._told: dict[str, bool] = {}
        # Not the node's clock: that of a paused simulation stands still.
        node.create_timer(PERIOD, self._tell, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _tell(self) -> None:
        for name, value in self._state().items():
            if self._told.get(name) != value:
                self._told[name] = value
                self._publishers[name].publish(Bool(data=value))
