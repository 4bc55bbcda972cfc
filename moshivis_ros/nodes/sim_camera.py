"""A camera robot in a simulated room, without Gazebo: the same world file, topics, frame ids and stamps as the bridge
of sim.launch.py. A scenario begins with the first listener.

Time goes on in Gazebo's steps of 4 ms, each of which is a message on /clock. A step that is late is made up for; where
more than a second is missing it is not, and simulated time goes slower than the real one. The robot stands 0.5 s after
the last cmd_vel, and where something is in its way. Its odometry is where it really is (Gazebo's counts wheels that slip).
"""

from __future__ import annotations

import importlib.util
import math
from array import array
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from geometry_msgs.msg import Quaternion, TransformStamped, Twist
from nav_msgs.msg import Odometry
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import CameraInfo, Image

from moshivis_ros.errors import ConfigError
from moshivis_ros.nodes.interface import QOS, Interface, Parameter, declare, values
from moshivis_ros.nodes.messages import to_time
from moshivis_ros.nodes.spin import spin
from moshivis_ros.simulation.base import Base
from moshivis_ros.simulation.render import Renderer
from moshivis_ros.simulation.scenario import load_scenario
from moshivis_ros.simulation.scene import Pose, Scene
from moshivis_ros.simulation.sdf import (
    BASE_FRAME,
    CAMERA_FRAME,
    CAMERA_RATE,
    CAMERA_SIZE,
    ODOM_FRAME,
    STEP,
    read_sdf,
)

# Nanoseconds, as rclpy has them.
SECOND = 1_000_000_000
TICK = round(STEP * SECOND)
ODOM_PERIOD = 5 * TICK  # 50 Hz, as Gazebo
MOST_LATE = SECOND  # what can be made up for

PARAMETERS = [
    Parameter("world", "", "an .sdf world written by this package"),
    Parameter("scenario", "", "a .yaml scenario instead: a world and what happens in it"),
    Parameter("rate", CAMERA_RATE, "pictures per second", (1.0, 60.0)),
    Parameter("clock", False, "publish the simulation's time on /clock, and stamp with it"),
]
INTERFACES = [
    Interface("image", "publishes", "sensor_msgs/msg/Image", f"rgb8, {CAMERA_SIZE[0]}x{CAMERA_SIZE[1]}"),
    Interface("camera_info", "publishes", "sensor_msgs/msg/CameraInfo", "with every image"),
    Interface("odom", "publishes", "nav_msgs/msg/Odometry", "from where it began, 50 Hz"),
    Interface("/tf", "publishes", "tf2_msgs/msg/TFMessage", "the same; where tf2_msgs is installed"),
    Interface("/clock", "publishes", "rosgraph_msgs/msg/Clock", "250 Hz, where clock is true"),
    Interface("cmd_vel", "subscribes", "geometry_msgs/msg/Twist", "linear.x, m/s, and angular.z, rad/s"),
]


class SimCamera(Node):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__("sim_camera", **kwargs)
        declare(self, PARAMETERS)
        settings = values(self, PARAMETERS)
        self._script = _scene(settings["world"], settings["scenario"])
        self._base = Base(self._script)
        self._odometry = _Odometry(self, self._script.robot.pose)
        self._images = self.create_publisher(Image, "image", 1, qos_overriding_options=QOS)
        self._infos = self.create_publisher(CameraInfo, "camera_info", 1, qos_overriding_options=QOS)
        self._clock_out = self.create_publisher(ClockMessage, "/clock", MOST_LATE // TICK) if settings["clock"] else None
        self._time = 0  # nanoseconds, simulated: a number of ticks
        self._begin: int | None = None  # of the scenario: when somebody began to listen
        self._picture_period = SECOND / settings["rate"]
        self._pictures = 0  # times at which one was due
        # Drawing takes longer than a tick, and OpenGL wants a thread of its own.
        self._painter = ThreadPoolExecutor(1)
        self._renderer = self._painter.submit(Renderer, self._script, *CAMERA_SIZE).result()
        self._drawn: tuple[Scene, array[int]] | None = None  # the painter's
        self._drawing: Future[None] | None = None
        # Whose time it follows: nobody's where it makes the time, else the node's.
        self._source = Clock(clock_type=ClockType.STEADY_TIME) if self._clock_out else self.get_clock()
        self._started = self._source.now().nanoseconds
        self.create_subscription(Twist, "cmd_vel", self._on_command, 1)
        period = TICK if self._clock_out else ODOM_PERIOD
        self.create_timer(period / SECOND, self._on_timer, clock=self._source)

    def close(self) -> None:
        self._painter.submit(self._renderer.close)
        self._painter.shutdown()

    def _on_command(self, command: Twist) -> None:
        self._base.command(command.linear.x, command.angular.z, self._time / SECOND)

    def _on_timer(self) -> None:
        late = self._source.now().nanoseconds - self._started - self._time
        if abs(late) > MOST_LATE:  # the machine was too busy, or slept, or its clock was set
            self._started += late
            return
        for _ in range(late // TICK):
            self._tick()

    def _tick(self) -> None:
        self._time += TICK
        if self._clock_out:
            self._clock_out.publish(ClockMessage(clock=to_time(self._time)))
        if self._base.moves(self._time / SECOND):
            self._base.step(self._scene(), STEP)
        if self._time % ODOM_PERIOD == 0:
            self._odometry.publish(self._scene().robot.pose, self._stamp())
        if self._time >= self._pictures * self._picture_period:
            self._pictures += 1
            self._take_picture()

    def _stamp(self) -> int:
        return self._time if self._clock_out else self._started + self._time

    def _scene(self) -> Scene:
        scene = self._script.at(0.0 if self._begin is None else (self._time - self._begin) / SECOND)
        return scene.with_robot_at(self._base.pose) if self._base.pose else scene

    def _take_picture(self) -> None:
        if self._drawing:
            if not self._drawing.done():  # slower than the rate: there is a next one
                return
            self._drawing.result()  # raises what went wrong
        if self._begin is None and self._images.get_subscription_count():
            self._begin = self._time
            self.get_logger().info(f"somebody is listening: the scenario begins at {self._stamp()} ns")
        self._drawing = self._painter.submit(self._draw, self._scene(), self._stamp())

    def _draw(self, scene: Scene, stamp: int) -> None:
        if self._drawn is None or self._drawn[0] != scene:
            data = array("B")
            data.frombytes(self._renderer.image(scene).data)
            self._drawn = scene, data
        width, height = CAMERA_SIZE
        image = Image(height=height, width=width, encoding="rgb8", step=3 * width, data=self._drawn[1])
        info = _camera_info(scene)
        for message in (image, info):
            message.header.stamp = to_time(stamp)
            message.header.frame_id = CAMERA_FRAME
        self._images.publish(image)
        self._infos.publish(info)


class _Odometry:
    """Says where the base is, as seen from where it began, and how fast it got there."""

    def __init__(self, node: Node, start: Pose) -> None:
        self._start = self._last = start
        self._odometry = node.create_publisher(Odometry, "odom", 10)
        self._transforms: Any = None
        if importlib.util.find_spec("tf2_msgs"):  # not among ROS's wheels
            from tf2_msgs.msg import TFMessage

            self._transforms = node.create_publisher(TFMessage, "/tf", 100)
        else:
            node.get_logger().warning("tf2_msgs is not installed: odom is published, /tf is not")

    def publish(self, pose: Pose, stamp: int) -> None:
        message = Odometry(child_frame_id=BASE_FRAME)
        message.header.stamp, message.header.frame_id = to_time(stamp), ODOM_FRAME
        x, y, turned = _seen_from(self._start, pose)
        message.pose.pose.position.x, message.pose.pose.position.y = x, y
        message.pose.pose.orientation = Quaternion(z=math.sin(turned / 2), w=math.cos(turned / 2))
        forward, left, turning = (SECOND / ODOM_PERIOD * moved for moved in _seen_from(self._last, pose))
        message.twist.twist.linear.x, message.twist.twist.linear.y = forward, left
        message.twist.twist.angular.z = turning
        self._last = pose
        self._odometry.publish(message)
        if self._transforms:
            transform = TransformStamped(header=message.header, child_frame_id=BASE_FRAME)
            transform.transform.translation.x, transform.transform.translation.y = x, y
            transform.transform.rotation = message.pose.pose.orientation
            self._transforms.publish(self._transforms.msg_type(transforms=[transform]))


def _seen_from(start: Pose, pose: Pose) -> tuple[float, float, float]:
    """x, y and yaw of `pose` where `start` is the origin."""
    x, y = pose.x - start.x, pose.y - start.y
    cosine, sine = math.cos(start.yaw), math.sin(start.yaw)
    return cosine * x + sine * y, cosine * y - sine * x, pose.yaw - start.yaw


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
