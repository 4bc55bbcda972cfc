"""A camera robot in a simulated room, without Gazebo: the same world file, topics, frame ids and stamps as the bridge
of sim.launch.py. A scenario begins with the first listener."""

from __future__ import annotations

import math
from array import array
from pathlib import Path

import numpy as np
from geometry_msgs.msg import Twist
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image

from moshivis_ros.errors import ConfigError
from moshivis_ros.nodes.interface import Interface, Parameter, declare, values
from moshivis_ros.nodes.messages import to_time
from moshivis_ros.nodes.spin import spin
from moshivis_ros.simulation.render import Renderer
from moshivis_ros.simulation.scenario import load_scenario
from moshivis_ros.simulation.scene import Pose, Scene, driven
from moshivis_ros.simulation.sdf import CAMERA_FRAME, CAMERA_RATE, CAMERA_SIZE, read_sdf

CLOCK_PERIOD = 0.01  # s
COMMAND_TIMEOUT = 0.5  # s without cmd_vel after which the robot stands

PARAMETERS = [
    Parameter("world", "", "an .sdf world written by this package"),
    Parameter("scenario", "", "a .yaml scenario instead: a world and what happens in it"),
    Parameter("rate", CAMERA_RATE, "pictures per second", (1.0, 60.0)),
    Parameter("clock", False, "publish the simulation's time on /clock, and stamp with it"),
]
INTERFACES = [
    Interface("image", "publishes", "sensor_msgs/msg/Image", f"rgb8, {CAMERA_SIZE[0]}x{CAMERA_SIZE[1]}"),
    Interface("camera_info", "publishes", "sensor_msgs/msg/CameraInfo", "with every image"),
    Interface("/clock", "publishes", "rosgraph_msgs/msg/Clock", "where clock is true"),
    Interface("cmd_vel", "subscribes", "geometry_msgs/msg/Twist", "linear.x, m/s, and angular.z, rad/s"),
]


class SimCamera(Node):
    def __init__(self) -> None:
        super().__init__("sim_camera")
        declare(self, PARAMETERS)
        settings = values(self, PARAMETERS)
        self._scene = _scene(settings["world"], settings["scenario"])
        self._renderer = Renderer(self._scene, *CAMERA_SIZE)
        self._rendered: tuple[Scene, array[int]] | None = None
        self._begin: int | None = None  # nanoseconds, when somebody began to listen
        self._started = self.get_clock().now().nanoseconds
        self._driven: Pose | None = None
        self._command = Twist()
        self._commanded = self._moved = 0
        self._images = self.create_publisher(Image, "image", 1)
        self._infos = self.create_publisher(CameraInfo, "camera_info", 1)
        self._time = self.create_publisher(Clock, "/clock", 10) if settings["clock"] else None
        self.create_subscription(Twist, "cmd_vel", self._on_command, 1)
        self.create_timer(1 / settings["rate"], self._on_timer)
        if self._time:
            self.create_timer(CLOCK_PERIOD, self._on_clock)

    def close(self) -> None:
        self._renderer.close()

    def _now(self) -> int:
        """Nanoseconds: of the simulation where it makes the time, else of the node's clock."""
        now = self.get_clock().now().nanoseconds
        return now - self._started if self._time else now

    def _on_clock(self) -> None:
        if self._time:
            self._time.publish(Clock(clock=to_time(self._now())))

    def _on_command(self, command: Twist) -> None:
        self._drive(self._now())
        self._command, self._commanded = command, self._now()

    def _drive(self, now: int) -> None:
        """Where the last command has taken the base since it was last asked for."""
        until = min(now, self._commanded + int(COMMAND_TIMEOUT * 1e9))
        seconds = (until - max(self._moved, self._commanded)) / 1e9
        self._moved = now
        forward, turning = self._command.linear.x, self._command.angular.z
        if seconds > 0 and (forward or turning):
            start = self._driven or self._scene.at(self._elapsed(now)).robot.pose
            self._driven = driven(start, forward, turning, seconds)

    def _elapsed(self, now: int) -> float:
        return 0.0 if self._begin is None else (now - self._begin) / 1e9

    def _on_timer(self) -> None:
        now = self._now()
        if self._begin is None and self._images.get_subscription_count():
            self._begin = now
            self.get_logger().info(f"somebody is listening: the scenario begins at {now} ns")
        self._drive(now)
        scene = self._scene.at(self._elapsed(now))
        if self._driven:
            scene = scene.with_robot_at(self._driven)
        if self._rendered is None or self._rendered[0] != scene:
            data = array("B")
            data.frombytes(self._renderer.image(scene).data)
            self._rendered = scene, data
        width, height = CAMERA_SIZE
        image = Image(height=height, width=width, encoding="rgb8", step=3 * width, data=self._rendered[1])
        info = _camera_info(scene)
        for message in (image, info):
            message.header.stamp = to_time(now)
            message.header.frame_id = CAMERA_FRAME
        self._images.publish(image)
        self._infos.publish(info)


def _scene(world: str, scenario: str) -> Scene:
    if bool(world) == bool(scenario):
        raise ConfigError("give either world (an .sdf file) or scenario (a .yaml file)")
    return load_scenario(Path(scenario)).scene if scenario else read_sdf(Path(world))


def _camera_info(scene: Scene) -> CameraInfo:
    width, height = CAMERA_SIZE
    focal = width / 2 / math.tan(scene.robot.field_of_view / 2)
    k = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    p = np.hstack([k, np.zeros((3, 1))])
    return CameraInfo(
        width=width,
        height=height,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=k.ravel(),
        r=np.eye(3).ravel(),
        p=p.ravel(),
    )


def main(args: list[str] | None = None) -> int:
    return spin(SimCamera, args)
