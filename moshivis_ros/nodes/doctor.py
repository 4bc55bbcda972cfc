"""The part of `moshivis doctor` that needs ROS: its environment, messages to itself, the cameras that publish.

The messages come from a process of its own: within one, the middleware would hand them over without sending them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from moshivis_ros.finding import Finding, said

WIDTH, HEIGHT = 640, 480  # rgb8: 0.9 MB, which default transports split into hundreds of parts
RATE = 10.0  # pictures a second to itself
WANTED = 15  # messages to itself
PATIENCE = 15.0  # seconds for them, the start of a process and its discovery included
SHARE = 0.8  # of the pictures to itself that must arrive
LOOK = 3.0  # seconds at each camera
FOUND = 7.0  # seconds in which a camera must be found: participants may tell of themselves every three
BEST_EFFORT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
CAMERAS = {"sensor_msgs/msg/Image": Image, "sensor_msgs/msg/CompressedImage": CompressedImage}
NAMES = (
    "ROS_DOMAIN_ID RMW_IMPLEMENTATION ROS_LOCALHOST_ONLY ROS_AUTOMATIC_DISCOVERY_RANGE ROS_STATIC_PEERS ROS_DISCOVERY_SERVER "
    "FASTDDS_BUILTIN_TRANSPORTS FASTDDS_DEFAULT_PROFILES_FILE FASTRTPS_DEFAULT_PROFILES_FILE CYCLONEDDS_URI "
    "ZENOH_SESSION_CONFIG_URI"
)


def examine() -> Iterator[Finding]:
    given = [f"{name}={os.environ[name]}" for name in NAMES.split() if name in os.environ]
    middleware = rclpy.get_rmw_implementation_identifier()
    text = ", ".join([os.environ.get("ROS_DISTRO", "ROS 2 as wheels"), middleware, *given])
    yield Finding("ros", "fine", text)
    with _listener() as (node, executor):
        yield from _to_itself(node, executor, middleware)
        yield from _cameras(node, executor)


@contextmanager
def _listener() -> Iterator[tuple[Node, SingleThreadedExecutor]]:
    context = Context()
    rclpy.init(args=[], context=context)
    executor = SingleThreadedExecutor(context=context)
    node = Node("moshivis_doctor", context=context)
    executor.add_node(node)
    try:
        yield node, executor
    finally:
        node.destroy_node()
        executor.shutdown()
        rclpy.shutdown(context=context)


def _to_itself(node: Node, executor: SingleThreadedExecutor, middleware: str) -> Iterator[Finding]:
    topic = f"moshivis_doctor_{os.getpid()}"
    numbers: list[int] = []
    seen: list[int] = []
    node.create_subscription(String, f"{topic}/message", lambda message: numbers.append(int(message.data)), 100)
    node.create_subscription(
        Image, f"{topic}/image", lambda image: seen.append(int(image.header.frame_id)), BEST_EFFORT
    )
    talker = subprocess.Popen(
        [sys.executable, "-c", f"from moshivis_ros.nodes.doctor import talk; talk({topic!r})"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,  # ours may be JSON
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    try:
        end = time.monotonic() + PATIENCE
        while len(numbers) < WANTED and time.monotonic() < end and talker.poll() is None:
            executor.spin_once(timeout_sec=0.1)
    finally:
        talker.communicate()  # it ends when nobody holds its input any more
    if not numbers:
        text = "a message to itself does not arrive: discovery or the network of this machine is in the way"
        yield Finding("message", "wrong", text, _open_network())
        return
    yield Finding("message", "fine", f"{len(numbers)} of {numbers[-1] - numbers[0] + 1} messages to itself arrived")
    sent = range(numbers[0], numbers[-1] + 1)
    arrived = len(set(seen) & set(sent))
    text = f"{arrived} of {len(sent)} pictures of {WIDTH * HEIGHT * 3 / 1e6:.1f} MB, best effort as cameras send them, arrived"
    if arrived >= SHARE * len(sent):
        yield Finding("large image", "fine", text)
    else:
        text += "; take the compressed topic, or before the camera's driver and the nodes"
        yield Finding("large image", "wrong", text, _large_messages(middleware))


def talk(topic: str) -> None:
    """Publishes pictures and messages with a number until its standard input is closed."""
    rclpy.init(args=[])
    node = Node("moshivis_doctor_talks")
    messages = node.create_publisher(String, f"{topic}/message", 100)
    images = node.create_publisher(Image, f"{topic}/image", BEST_EFFORT)
    image = Image(width=WIDTH, height=HEIGHT, step=3 * WIDTH, encoding="rgb8")
    image.data = array("B", bytes(3 * WIDTH * HEIGHT))
    os.set_blocking(sys.stdin.fileno(), False)
    number = 0
    while sys.stdin.buffer.read() is None:  # nothing there; at its end it is b""
        image.header.frame_id = str(number)
        images.publish(image)
        messages.publish(String(data=str(number)))
        number += 1
        time.sleep(1 / RATE)
    node.destroy_node()
    rclpy.shutdown()


def _open_network() -> str:
    flags = said("ip", "link", "show", "lo") or "MULTICAST"
    if "MULTICAST" not in flags and os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "").upper() != "OFF":
        return "sudo ip link set lo multicast on"
    if shutil.which("ufw"):
        return "sudo ufw allow in proto udp to 224.0.0.0/4 && sudo ufw allow in proto udp from 127.0.0.0/8"
    return "export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST"


def _large_messages(middleware: str) -> str:
    if "cyclonedds" in middleware:
        return "sudo sysctl -w net.core.rmem_max=2147483647 net.ipv4.ipfrag_high_thresh=134217728"
    return "export FASTDDS_BUILTIN_TRANSPORTS=LARGE_DATA"


def _cameras(node: Node, executor: SingleThreadedExecutor) -> Iterator[Finding]:
    """Rate and size of every topic of pictures, after a look at it."""
    seen: dict[tuple[str, str], list[tuple[float, Any]]] = {}
    end = time.monotonic() + FOUND
    while time.monotonic() < end:
        for topic in _publishing(node):
            if topic not in seen:
                arrived = seen.setdefault(topic, []).append
                node.create_subscription(
                    CAMERAS[topic[1]],
                    topic[0],
                    lambda picture, arrived=arrived: arrived((time.monotonic(), picture)),
                    BEST_EFFORT,
                )
                end = time.monotonic() + LOOK
        executor.spin_once(timeout_sec=0.1)
    for (name, kind), pictures in seen.items():
        if not pictures:
            text = f"{name} ({kind}) has a publisher, and no picture came in {LOOK:g} s"
            yield Finding("camera", "wrong", text, f"ros2 topic info --verbose {name}")
            continue
        first, last, picture = pictures[0][0], pictures[-1][0], pictures[-1][1]
        rate = f"{(len(pictures) - 1) / (last - first):.1f} Hz" if last > first else f"one in {LOOK:g} s"
        size = (
            f"{picture.width}x{picture.height} {picture.encoding}, "
            if isinstance(picture, Image)
            else f"{picture.format}, "
        )
        yield Finding("camera", "fine", f"{name}: {rate}, {size}{len(picture.data) / 1e6:.2f} MB a picture")
    if not seen:
        text = "no topic of pictures: start the camera's driver, or try `ros2 run moshivis_ros sim_camera`"
        yield Finding("camera", "absent", text)


def _publishing(node: Node) -> list[tuple[str, str]]:
    """Name and type of every topic of pictures that somebody publishes."""
    topics = [(name, kind) for name, kinds in node.get_topic_names_and_types() for kind in kinds]
    return [(name, kind) for name, kind in topics if kind in CAMERAS and node.count_publishers(name)]
