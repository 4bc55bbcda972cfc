"""The simulated camera robot as a vehicle, over DDS: clock, odometry, and what stops it. Judged by simulated time."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from geometry_msgs.msg import Twist
from nav_msgs.msg import Odometry
from robot import Robot
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo

from moshivis_ros.nodes.messages import to_nanoseconds

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("mujoco"), reason="mujoco is not installed")

ROOT = Path(__file__).parents[2]
ROOM = ROOT / "worlds" / "talk_room.sdf"
MS = 1_000_000


def command(forward: float = 0.0, turning: float = 0.0) -> Twist:
    twist = Twist()
    twist.linear.x, twist.angular.z = forward, turning
    return twist


@contextmanager
def driving(robot: Robot, forward: float = 0.0, turning: float = 0.0) -> Iterator[None]:
    """Commands as a teleoperation sends them, ten a second."""
    publisher = robot.publisher(Twist, "cmd_vel")
    timer = robot.node.create_timer(0.1, lambda: publisher.publish(command(forward, turning)))
    yield
    robot.node.destroy_timer(timer)


def speed(message: Odometry) -> float:
    return message.twist.twist.linear.x


def yaw(message: Odometry) -> float:
    turned = message.pose.pose.orientation
    return 2 * math.atan2(turned.z, turned.w)


def stamp(message: Odometry) -> int:
    return to_nanoseconds(message.header.stamp)


def test_the_clock_is_steady_while_pictures_are_drawn(robot: Robot) -> None:
    published: list[tuple[int, str, int]] = []  # when, by the node's own record; where; stamp or time
    kinds = {"/clock": lambda message: message.clock, "camera_info": lambda message: message.header.stamp}

    def note(topic: str) -> Callable[[Any, Any], None]:
        def on_message(message: Any, about: dict[str, int]) -> None:
            published.append((about["source_timestamp"], topic, to_nanoseconds(kinds[topic](message))))

        return on_message

    def times(topic: str) -> list[int]:
        return [time for _, where, time in sorted(published) if where == topic]

    robot.start("sim_camera", world=ROOM, clock=True)
    robot.node.create_subscription(Clock, "/clock", note("/clock"), 2000)
    robot.node.create_subscription(CameraInfo, "camera_info", note("camera_info"), 10)
    odometry = robot.collect(Odometry, "odom")
    with driving(robot, turning=0.3):  # every picture is another one
        robot.until(lambda: odometry and odometry[-1].twist.twist.angular.z)
        published.clear()
        robot.until(lambda: len(times("camera_info")) >= 4 and len(times("/clock")) >= 500)
    clock, stamps = times("/clock"), times("camera_info")
    assert {after - before for before, after in zip(clock, clock[1:])} == {4 * MS}
    assert stamps == sorted(set(stamps)) and all(stamp % (4 * MS) == 0 for stamp in stamps)
    # Time went on between the moment that a picture shows and its publication.
    order = [(where, time) for _, where, time in sorted(published)]
    went_on = [
        max((now for topic, now in order[:k] if topic == "/clock"), default=0) - time
        for k, (where, time) in enumerate(order)
        if where == "camera_info"
    ]
    assert max(went_on) >= 8 * MS


def test_odometry_follows_and_the_last_command_has_its_time(robot: Robot) -> None:
    robot.start("sim_camera", world=ROOM)
    odometry = robot.collect(Odometry, "odom")
    publisher = robot.publisher(Twist, "cmd_vel")
    robot.until(lambda: odometry)
    publisher.publish(command(forward=0.4))  # one, and never again
    robot.until(lambda: any(map(speed, odometry)) and not speed(odometry[-1]))
    position = odometry[-1].pose.pose.position
    assert (position.x, position.y) == pytest.approx((0.4 * 0.5, 0.0), abs=0.005)
    assert max(map(speed, odometry)) == pytest.approx(0.4)
    assert odometry[-1].header.frame_id == "odom" and odometry[-1].child_frame_id == "base_link"
    assert {after - before for before, after in zip(map(stamp, odometry), map(stamp, odometry[1:]))} == {20 * MS}

    publisher.publish(command(turning=-0.6))
    robot.until(lambda: yaw(odometry[-1]) and not odometry[-1].twist.twist.angular.z)
    assert yaw(odometry[-1]) == pytest.approx(-0.6 * 0.5, abs=0.005)
    assert odometry[-1].pose.pose.position.x == pytest.approx(position.x)


def test_a_table_stops_the_robot(robot: Robot) -> None:
    robot.start("sim_camera", world=ROOM)
    odometry = robot.collect(Odometry, "odom")
    with driving(robot, forward=1.5):
        robot.until(lambda: any(map(speed, odometry)) and not speed(odometry[-1]))
    # From x = -1.7 until the mast, whose front is 0.08 m behind the axle, meets the edge of the table at -0.4.
    assert odometry[-1].pose.pose.position.x == pytest.approx(1.7 - 0.4 + 0.08, abs=0.01)
    with driving(robot, forward=-0.5):
        robot.until(lambda: odometry[-1].pose.pose.position.x < 1.2)  # and it is not stuck


def test_the_odometry_is_a_transform_too(robot: Robot) -> None:
    messages = pytest.importorskip("tf2_msgs.msg", reason="tf2_msgs comes with ROS, not with the wheels")
    robot.start("sim_camera", world=ROOM)
    odometry, transforms = robot.collect(Odometry, "odom"), robot.collect(messages.TFMessage, "/tf")
    with driving(robot, forward=0.5, turning=0.5):
        robot.until(lambda: odometry and yaw(odometry[-1]) > 0.3 and transforms)
    there = {stamp(message): message.pose.pose for message in odometry}
    (transform,) = next(m.transforms for m in reversed(transforms) if stamp(m.transforms[0]) in there)
    pose = there[stamp(transform)]
    assert (transform.header.frame_id, transform.child_frame_id) == ("odom", "base_link")
    assert transform.transform.translation.x == pose.position.x
    assert transform.transform.rotation == pose.orientation


def test_a_base_that_would_drive_on_is_stopped(robot: Robot) -> None:
    robot.start("deadman", timeout=0.2)
    commands = robot.collect(Twist, "cmd_vel")
    publisher = robot.publisher(Twist, "cmd_vel")
    robot.until(lambda: publisher.get_subscription_count() == 2 and robot.node.count_publishers("cmd_vel") == 2)

    def stops() -> int:
        return commands.count(Twist())

    for number in (1, 2):
        publisher.publish(command(turning=0.1))
        robot.until(lambda number=number: stops() == number)
    publisher.publish(Twist())  # nothing to stop: a zero of its own comes after the next command only
    publisher.publish(command(forward=0.1))
    publisher.publish(Twist())  # as its own might, which is late
    robot.until(lambda: stops() == 5)
    assert commands == [command(turning=0.1), Twist()] * 2 + [Twist(), command(forward=0.1), Twist(), Twist()]


@pytest.mark.launch
@pytest.mark.parametrize(
    ("headless", "display", "alone"),
    [("auto", "", True), ("auto", ":0", False), ("true", ":0", True), ("false", "", False)],
)
def test_gazebo_has_no_window_where_there_is_no_display(
    headless: str, display: str, alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("launch_ros", reason="launch comes with ROS, not with the wheels")
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    spec = importlib.util.spec_from_file_location("sim_launch", ROOT / "launch" / "sim.launch.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    server = module._gazebo("room.sdf", headless)[0]
    given = dict(server.launch_arguments)["gz_args"].split()
    assert given[-1] == "room.sdf" and ({"-s", "--headless-rendering"} <= set(given)) == alone
