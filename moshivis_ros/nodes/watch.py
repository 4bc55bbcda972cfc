"""`moshivis watch`: a running talk node in a terminal: what is said and seen, what it is doing, what goes wrong."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

try:
    import rclpy
except ImportError as missing:
    from moshivis_ros.errors import MissingDependencyError

    raise MissingDependencyError("watch needs ROS 2: source its setup file, or use the .venv of `make`") from missing
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node

from moshivis_ros.errors import ImageError
from moshivis_ros.nodes import observer
from moshivis_ros.nodes.interface import declare
from moshivis_ros.nodes.observer import Observer
from moshivis_ros.nodes.pictures import Pictures
from moshivis_ros.shading import printable
from moshivis_ros.terminal import SIGHT, Screen

DESCRIPTION = """\
Shows what a running talk node hears, says, sees and decides, until Ctrl-C. Every word is shaded by how much the model looked
at the picture while it said it. Topics that are called otherwise: --ros-args -r audio_in:=/mic -r transcript:=/words ...
"""
LEVELS = ("", "yellow", "bold red", "bold red")  # of diagnostics
COUNTED = ("dropped", "lost", "over 80 ms")


class Shown:
    """Shows on a screen what a node can observe of the conversation in its namespace. `also`: called with every event of
    the Observer, after it was shown.
    """

    def __init__(self, node: Node, screen: Screen, also: Callable[[dict[str, Any]], None] = lambda event: None) -> None:
        declare(node, observer.PARAMETERS)
        self._node, self._screen, self._also = node, screen, also
        self._seen = 0  # stamp of the picture that is shown
        self._pictures = (
            Pictures(node, SIGHT[0], lambda kept: None, MutuallyExclusiveCallbackGroup())
            if screen.console.is_terminal
            else None
        )
        self._observer = Observer(node, self._tell, lambda frame: None)

    def _tell(self, event: dict[str, Any]) -> None:
        self._show(event)
        self._also(event)

    def _show(self, event: dict[str, Any]) -> None:
        screen, kind = self._screen, event["kind"]
        if kind == "said" and event["speaker"] == "user":
            self._hear(event)
        elif kind == "said" and event["final"]:
            screen.over(event["speaker"])
        elif kind == "said":
            screen.piece(event["speaker"], event["text"], event["gate"])
        elif kind == "level":
            screen.level(event["side"], event["rms"])
        elif kind == "gate":
            screen.gate(event["value"])
        elif kind == "sight":
            age = f"{event['age']:.1f} s old, " if event["stamp"] else "none, "
            screen.tell("picture", f"{age}{event['decision']}: {event['reason']}, scene distance {event['distance']:.3f}")
            if event["stamp"] != self._seen:
                self._see(event["stamp"])
        elif kind == "speaking":
            states = [name for name in ("robot", "user", "muted", "asleep") if event[name]]
            screen.tell("speaking", ", ".join(states))
        else:
            self._diagnose(event)

    def _see(self, stamp: int) -> None:
        kept = self._pictures.of(stamp) if self._pictures is not None else None
        if stamp and kept is None:
            return  # it may yet come: the next status tells of it again
        self._seen = stamp
        try:
            self._screen.see(kept.pixels if kept is not None else None)
        except ImageError as error:
            self._node.get_logger().warning(f"a picture is not shown: {error}")

    def _hear(self, event: dict[str, Any]) -> None:
        """Each part is a new guess at all that the user says."""
        if event["final"]:
            self._screen.piece("user", event["text"], event["gate"])
            self._screen.over("user")
        self._screen.tell("user seems to say", "" if event["final"] else printable(event["text"]))

    def _diagnose(self, event: dict[str, Any]) -> None:
        values = event["values"]
        counted = [f"{key}: {value}" for key, value in values.items() if any(word in key for word in COUNTED) and value != "0"]
        times = [f"{key[-8:-5]} {values[key]}" for key in values if key.startswith("frame time")]
        frame = [f"frame {', '.join(times)} of 80 ms"] if times else []
        self._screen.tell(event["name"], "; ".join([event["words"], *frame, *counted]), LEVELS[event["level"]])


class Watch(Node):
    def __init__(self, screen: Screen, namespace: str, arguments: list[str]) -> None:
        super().__init__("watch", namespace=namespace, cli_args=arguments)
        self._shown = Shown(self, screen)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--namespace", default="", help="of the robot (default: none)")
    parser.add_argument("--ros-args", nargs=argparse.REMAINDER, help="remappings and parameters, as of every node")


def run(args: argparse.Namespace) -> int:
    rclpy.init(args=[])
    given = ["--ros-args", *args.ros_args] if args.ros_args else []
    with Screen() as screen:
        node = Watch(screen, args.namespace, given)
        try:
            rclpy.spin(node)
        except (KeyboardInterrupt, ExternalShutdownException):
            pass
        finally:
            node.destroy_node()
            rclpy.try_shutdown()
    return 0
