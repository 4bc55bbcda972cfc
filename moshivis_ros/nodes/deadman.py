"""Stops a base whose commands have ceased, by one zero on cmd_vel. For bases that would drive on, as Gazebo's does; a
robot's own, and sim_camera's, stop by themselves."""

from __future__ import annotations

from typing import Any

from geometry_msgs.msg import Twist
from rclpy.node import Node

from moshivis_ros.nodes.interface import Interface, Parameter, declare, values
from moshivis_ros.nodes.spin import spin
from moshivis_ros.simulation.base import COMMAND_TIMEOUT

PARAMETERS = [
    Parameter("timeout", COMMAND_TIMEOUT, "seconds without cmd_vel after which it is stopped", (0.05, 10.0)),
]
INTERFACES = [
    Interface("cmd_vel", "subscribes", "geometry_msgs/msg/Twist", "what the base is told"),
    Interface("cmd_vel", "publishes", "geometry_msgs/msg/Twist", "zero, once after every command that was the last"),
]


class Deadman(Node):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__("deadman", **kwargs)
        declare(self, PARAMETERS)
        self._stop = self.create_publisher(Twist, "cmd_vel", 1)
        self._timer = self.create_timer(values(self, PARAMETERS)["timeout"], self._on_timeout)
        self._timer.cancel()
        self.create_subscription(Twist, "cmd_vel", self._on_command, 10)  # its own zero must not push out a command

    def close(self) -> None:
        """Nothing is held."""

    def _on_command(self, command: Twist) -> None:
        # A zero may be its own, which comes after the command that followed it, and must not keep that from being stopped.
        if command != Twist():
            self._timer.reset()

    def _on_timeout(self) -> None:
        self._timer.cancel()
        self._stop.publish(Twist())


def main(args: list[str] | None = None) -> int:
    return spin(Deadman, args)
