"""A robot that is told where to turn and asked what it sees, on one machine without hardware: real nodes in processes of
their own, a simulated room, a recorded voice.

`make drive`, or `ros2 run moshivis_ros drive`. Needs mujoco and faster-whisper.
"""

from __future__ import annotations

import argparse
import math
import re
import subprocess
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from geometry_msgs.msg import Twist
from lifecycle_msgs.msg import Transition
from nav_msgs.msg import Odometry
from std_msgs.msg import Float64
from std_srvs.srv import Trigger

from moshivis_ros import arguments
from moshivis_ros.audio import FRAME_SECONDS, FRAME_SIZE, Float
from moshivis_ros.audio.files import read
from moshivis_ros.audio.pcm import encode
from moshivis_ros.msg import Audio
from moshivis_ros.nodes.demo import START_SECONDS, Demo, DemoError, running, shared, staged
from moshivis_ros.nodes.messages import to_audio, to_nanoseconds
from moshivis_ros.terminal import Screen

ANSWER_SECONDS = 60.0
THERE = 0.03  # radians from where the base is to be
GAIN, FASTEST = 2.0, 0.8  # of the base's turning: rad/s for each radian that is missing, and at most
NODES = ("talk", "sim_camera", "listener", "commands")


def main(args: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="drive", description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default="builtin", help="checkpoint folder or Hugging Face repo (%(default)s)")
    parser.add_argument("--device", type=arguments.device, default="auto", help="auto, cpu, cuda, ...")
    parser.add_argument("--whisper", default="tiny.en", help="model of the listener: a size, a folder or a repo (%(default)s)")
    parser.add_argument("--world", type=Path, help="an .sdf world (default: one with a table before the robot and one to its left)")
    parser.add_argument("--commands", type=Path, help="what the robot may be told (default: config/drive.yaml)")
    return staged(partial(_drive, parser.parse_args(args)))


def _drive(options: argparse.Namespace, stack: ExitStack) -> None:
    screen = Screen()
    robot = Drive(screen)
    stack.callback(robot.destroy_node)
    given: dict[str, dict[str, Any]] = {
        "talk": {"model": options.model, "device": options.device},
        "sim_camera": {"world": options.world or shared("worlds") / "two_tables.sdf"},
        "listener": {"model": options.whisper},
        "commands": {"commands": options.commands or shared("config") / "drive.yaml"},
    }
    nodes = {name: stack.enter_context(running(screen, name, **{k: str(v) for k, v in given[name].items()})) for name in NODES}
    robot.change_state(Transition.TRANSITION_CONFIGURE, nodes)
    robot.until(lambda: robot.told and robot.heading is not None and robot.has_listeners(), nodes, START_SECONDS)
    with screen:
        _tell_and_ask(robot, nodes)
    robot.change_state(Transition.TRANSITION_DEACTIVATE, nodes)
    if not re.search(r"\w", robot.answer):
        raise DemoError("the robot did not answer")
    print(f"\nturned {math.degrees(robot.heading or 0.0):.0f} degrees, and tells: {robot.answer}")


def _tell_and_ask(robot: Drive, nodes: dict[str, subprocess.Popen[bytes]]) -> None:
    robot.change_state(Transition.TRANSITION_ACTIVATE, nodes)
    robot.until(lambda: robot.seen, nodes, START_SECONDS)
    robot.screen.note("[told: turn left]")
    robot.speak(read(shared("media") / "turn_left.wav"))
    robot.until(lambda: robot.turned, nodes, ANSWER_SECONDS)
    robot.until(robot.has_looked, nodes, ANSWER_SECONDS)
    robot.until(lambda: not robot.speaking, nodes, ANSWER_SECONDS)
    robot.screen.note("[asked: what do you see]")
    robot.answer = robot.heard = ""
    robot.speak(read(shared("media") / "what_do_you_see.wav"))
    robot.until(lambda: robot.answer and robot.heard, nodes, ANSWER_SECONDS)


class Drive(Demo):
    """The voice that is heard, and the base's own software: it turns by so much as `turn` says, by its odometry."""

    def __init__(self, screen: Screen) -> None:
        super().__init__(screen)
        self.heading: float | None = None  # radians, to the left; None: no odometry yet
        self.turned = self.seen = 0  # when the base was there, and of what time the picture in the cache is; ns, 0: not yet
        self.told = self.speaking = False  # by the listener; whether anybody speaks
        self.answer = self.heard = ""  # the newest utterance of the robot, and of the user
        self._goal: float | None = None
        self._sound: Float = np.zeros(0, np.float32)  # yet to be heard
        self._voice = self.create_publisher(Audio, "audio_in", 100)
        self._base = self.create_publisher(Twist, "cmd_vel", 1)
        self.create_subscription(Odometry, "odom", self._on_odometry, 10)
        self.create_subscription(Float64, "turn", self._on_turn, 10)
        self._look, self._asked_to_look = self.create_client(Trigger, "talk/refresh_image"), 0.0
        self._begin, self._index = time.time_ns(), 0
        self.create_timer(FRAME_SECONDS, self._on_frame)

    def has_listeners(self) -> bool:
        """The listener, and the commands that listen to it; talk comes with activate."""
        return self._voice.get_subscription_count() > 1 and self.count_subscribers("user_transcript") > 1

    def speak(self, recording: Float) -> None:
        self._sound = np.concatenate([self._sound, recording])

    def has_looked(self) -> bool:
        """The picture in the cache is one from after the turn. Of a view that has changed too little since its last look talk takes
        none by itself, so it is asked to, once a second.
        """
        if self.seen <= self.turned and time.monotonic() - self._asked_to_look > 1.0:
            self._asked_to_look = time.monotonic()
            self._look.call_async(Trigger.Request())
        return self.seen > self.turned

    def _on_frame(self) -> None:
        frame = round(FRAME_SECONDS * 1e9)
        while self._begin + (self._index + 1) * frame <= time.time_ns():
            now, self._sound = self._sound[:FRAME_SIZE], self._sound[FRAME_SIZE:]
            samples = encode(np.pad(now, (0, FRAME_SIZE - now.size))).tobytes()
            self._voice.publish(to_audio(samples, self._index, self._begin + self._index * frame))
            self._index += 1

    def _on_turn(self, message: Float64) -> None:
        if self.heading is not None:
            self._goal = self.heading + message.data

    def _on_odometry(self, message: Odometry) -> None:
        turned = message.pose.pose.orientation
        self.heading = 2 * math.atan2(turned.z, turned.w)
        if self._goal is None:
            return
        missing = self._goal - self.heading
        command = Twist()
        if abs(missing) > THERE:
            command.angular.z = max(-FASTEST, min(FASTEST, GAIN * missing))
        else:
            self._goal, self.turned = None, to_nanoseconds(message.header.stamp)
        self._base.publish(command)

    def on_event(self, event: dict[str, Any]) -> None:
        super().on_event(event)
        if event["kind"] == "speaking":
            self.told, self.speaking = True, event["robot"] or event["user"]
        elif event["kind"] == "sight":
            self.seen = event["stamp"]
        elif event["kind"] == "said" and event["final"] and event["speaker"] == "user":
            self.heard = event["text"]
        elif event["kind"] == "said" and event["final"]:
            self.answer = event["text"]
