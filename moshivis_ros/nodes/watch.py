"""`moshivis watch`: a running talk node in a terminal: what is said and seen, what it is doing, what goes wrong."""

from __future__ import annotations

import argparse
from typing import Any

try:
    import rclpy
except ImportError as missing:
    from moshivis_ros.errors import MissingDependencyError

    raise MissingDependencyError("watch needs ROS 2: source its setup file, or use the .venv of `make`") from missing
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node

from moshivis_ros.nodes import observer
from moshivis_ros.nodes.interface import declare
from moshivis_ros.nodes.observer import Observer
from moshivis_ros.shading import printable
from moshivis_ros.terminal import Screen

DESCRIPTION = """\
Shows what a running talk node hears, says, sees and decides, until Ctrl-C. Every word is shaded by how much the model looked
at the picture while it said it. Topics that are called otherwise: --ros-args -r audio_in:=/mic -r transcript:=/words ...
"""
LEVELS = ("", "yellow", "bold red", "bold red")  # of diagnostics
COUNTED = ("dropped", "lost", "over 80 ms")


class Watch(Node):
    def __init__(self, screen: Screen, namespace: str, arguments: list[str]) -> None:
        super().__init__("watch", namespace=namespace, cli_args=arguments)
        declare(self, observer.PARAMETERS)
        self._screen = screen
        self._observer = Observer(self, self._tell, lambda frame: None)

    def _tell(self, event: dict[str, Any]) -> None:
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
        elif kind == "speaking":
            states = [name for name in ("robot", "user", "muted", "asleep") if event[name]]
            screen.tell("speaking", ", ".join(states))
        else:
            self._diagnose(event)

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
