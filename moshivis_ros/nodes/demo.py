"""The whole robot on one machine without hardware: real nodes in processes of their own, a recorded question,
photos.

`make talk`, or `ros2 run moshivis_ros demo`. Shows what the robot says and sees while it does, leaves a bag,
conversation.wav, transcript.json and report.html, and ends by itself. With --live you ask yourself, until Ctrl-C.
"""

from __future__ import annotations

import argparse
import codecs
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from moshivis_ros import arguments
from moshivis_ros.audio import SAMPLE_RATE
from moshivis_ros.audio.files import read
from moshivis_ros.errors import MoshiVisError
from moshivis_ros.nodes.watch import Shown
from moshivis_ros.recording import report
from moshivis_ros.terminal import Screen
from moshivis_ros.vision.sources import photos

NAMESPACE = "/moshivis_demo"
BUILTIN = """
Talking with the miniature of the package. For the real robot, with a GPU (16.6 GB download; `moshivis doctor` tells
whether yours will do):
    --model kyutai/moshika-vis-pytorch-bf16
"""
START_SECONDS = 60.0
LOAD_SECONDS = 3600.0  # a model of 16 GB may have to be downloaded first
END_SECONDS = 20.0
LISTENERS = 3  # to the question: talk, recorder, demo; who is not there when it begins misses its beginning
VIEWERS = 2  # of the camera: talk, recorder; in a terminal the demo, too
COLOURED = {"RCUTILS_COLORIZED_OUTPUT": "1", "TQDM_POSITION": "-1"}  # logs, and bars of downloads, as in a terminal
PAGE = ("127.0.0.1", 8765)  # of the dashboard
QUESTION = "audio_file"  # ends when it has asked


stop = threading.Event()  # Ctrl-C was pressed


class Stopped(Exception):
    """The user has had enough."""


class DemoError(MoshiVisError):
    """A node of the demo did not do its part."""


def main(args: list[str] | None = None) -> int:
    options = _options(args)
    return staged(partial(_talk, options))


def staged(play: Callable[[ExitStack], None]) -> int:
    """Play a demo: the exit code. What it enters into the stack is ended when it is over, and on Ctrl-C."""
    # A demo is nobody else's business on the network.
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    # Noticed in Demo.until() only: an exception in the middle of starting a process would lose that process.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    try:
        with ExitStack() as stack:
            play(stack)
    except Stopped:
        print("\nstopped")
        return 130
    except MoshiVisError as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    finally:
        rclpy.try_shutdown()
    return 0


def _options(args: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="demo", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--model",
        default="builtin",
        help="checkpoint folder or Hugging Face repo (default: the miniature of the package)",
    )
    parser.add_argument("--adapters", default="", help="folder of `moshivis train`, put into the model")
    parser.add_argument("--device", type=arguments.device, default="auto", help="auto, cpu, cuda, ...")
    parser.add_argument("--audio", type=Path, help="a recorded question (default: one of the project's own)")
    parser.add_argument(
        "--images",
        type=Path,
        help="a photo, a video, or a folder of photos, each of which is asked about (default: as above)",
    )
    parser.add_argument(
        "--seconds", type=arguments.number(0, 3600), default=8.0, help="to listen to the answer, after each question"
    )
    parser.add_argument("--out", type=Path, default=Path("conversation"), help="folder for what is recorded")
    parser.add_argument("--speaker", action="store_true", help="also play the robot's voice")
    parser.add_argument(
        "--live",
        action="store_true",
        help="ask it yourself: this machine's microphone, loudspeaker and camera (or --images), until Ctrl-C",
    )
    parser.add_argument("--dashboard", action="store_true", help="also serve the dashboard, and open it in a browser")
    options = parser.parse_args(args)
    options.audio = options.audio or shared("media") / "question.wav"
    options.images = options.images or (Path("/dev/video0") if options.live else shared("media"))
    return options


def shared(folder: str) -> Path:
    """A folder of the project, such as media (its recordings and pictures), in a source tree or installed."""
    source = Path(__file__).resolve().parents[2] / folder
    return source if source.is_dir() else prefix() / "share" / "moshivis_ros" / folder


def prefix() -> Path:
    """Where the package was installed by colcon."""
    for folder in [*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix]:
        if (Path(folder) / "lib" / "moshivis_ros" / "talk").exists():
            return Path(folder)
    raise DemoError("moshivis_ros is not built: run `make build`, or colcon build and source its setup file")


def _talk(options: argparse.Namespace, stack: ExitStack) -> None:
    model = options.model
    if model == "builtin":
        print(BUILTIN, flush=True)
    screen = Screen()
    node = Demo(screen)
    stack.callback(node.destroy_node)
    talk = stack.enter_context(
        running(screen, "talk", model=model, adapters=options.adapters, device=options.device)
    )
    bag = options.out / time.strftime("bag_%Y-%m-%d_%H-%M-%S")
    recorder = stack.enter_context(running(screen, "recorder", folder=str(bag)))
    nodes = {"talk": talk, "recorder": recorder}
    if options.speaker or options.live:
        nodes["speaker"] = stack.enter_context(running(screen, "speaker"))
    if options.dashboard:
        nodes["dashboard"] = stack.enter_context(running(screen, "dashboard", host=PAGE[0], port=PAGE[1]))
        node.until(_is_served, nodes, START_SECONDS)
        webbrowser.open("http://{}:{}".format(*PAGE))
    if options.live:
        camera = {"path": str(options.images), "loop": True, "format": "jpeg"}
        nodes["video_file"] = stack.enter_context(running(screen, "video_file", **camera))
        nodes["microphone"] = stack.enter_context(running(screen, "microphone", "audio_in:=audio_raw"))
        nodes["echo_canceller"] = stack.enter_context(running(screen, "echo_canceller"))
        node.until(node.is_shown, nodes, START_SECONDS)
    print(f"loading {model} ...", flush=True)
    node.change_state(Transition.TRANSITION_CONFIGURE, nodes)
    with screen:
        if options.live:
            _ask_yourself(node, nodes)
        else:
            _ask(options, node, nodes)
    node.change_state(Transition.TRANSITION_DEACTIVATE, nodes)
    _stop("recorder", recorder)
    if not node.frames:
        raise DemoError("the robot said nothing, not even silence: no message came on audio_out")
    print(f"\n{node.frames} frames of 80 ms, {node.refreshes} pictures seen")
    wav, transcript = options.out / "conversation.wav", options.out / "transcript.json"
    report.write(bag, options.out / "report.html", wav, transcript)
    print(f"\nlisten to {wav} (left the robot, right you); the words are in {transcript},\n"
          f"all of it in {options.out / 'report.html'}, recorded as {bag}")  # fmt: skip


def _ask(options: argparse.Namespace, node: Demo, nodes: dict[str, subprocess.Popen[bytes]]) -> None:
    """The recorded question about each picture."""
    screen = node.screen
    seconds = read(options.audio).size / SAMPLE_RATE + options.seconds
    pictures = photos(options.images) if options.images.is_dir() else [options.images]
    question = {"path": str(options.audio), "tail": options.seconds, "listeners": LISTENERS}
    viewers = VIEWERS + screen.console.is_terminal
    for turn, picture in enumerate(pictures):
        node.until(lambda: not node.is_shown(), nodes, START_SECONDS)
        with running(screen, "video_file", path=str(picture), loop=True, format="jpeg", listeners=viewers) as camera:
            showing = {**nodes, "video_file": camera}
            node.until(node.is_shown, showing, START_SECONDS)
            if not turn:
                node.change_state(Transition.TRANSITION_ACTIVATE, showing)
            screen.note(f"[shown {picture.name}, asked {options.audio.name}]")
            node.asked = 0
            with running(screen, "audio_file", **question) as voice:
                node.until(partial(node.has_heard, seconds), {**showing, QUESTION: voice}, None)


def _ask_yourself(node: Demo, nodes: dict[str, subprocess.Popen[bytes]]) -> None:
    """Until Ctrl-C, which ends the conversation and not the demo."""
    node.change_state(Transition.TRANSITION_ACTIVATE, nodes)
    node.screen.note("[ask it about what the camera sees; Ctrl-C ends the conversation]")
    try:
        node.until(lambda: False, nodes, None)
    except Stopped:
        stop.clear()


def _is_served() -> bool:
    try:
        socket.create_connection(PAGE, 0.1).close()
    except OSError:
        return False
    return True


@contextmanager
def running(screen: Screen, executable: str, *remappings: str, **parameters: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A node in a process of its own, ended at the end."""
    command = [prefix() / "lib" / "moshivis_ros" / executable, "--ros-args", "-r", f"__ns:={NAMESPACE}"]
    for remapping in remappings:
        command += ["-r", remapping]
    for name, value in parameters.items():
        text = str(value).lower() if isinstance(value, bool) else value
        command += [
            "-p",
            f"{name}:='{text}'"
            if isinstance(text, str) and text not in ("true", "false")
            else f"{name}:={text}",
        ]
    # A session of its own: Ctrl-C is for the demo, which ends its nodes in the right order.
    given = [str(part) for part in command]
    if screen.console.is_terminal:  # which is the screen's; programs that write to it as well spoil the picture
        process = subprocess.Popen(
            given, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, **COLOURED}
        )
        threading.Thread(target=_pass_on, args=(process.stdout, screen), daemon=True).start()
    else:
        process = subprocess.Popen(given, start_new_session=True)
    try:
        yield process
    finally:
        _stop(executable, process)


def _pass_on(output: IO[bytes], screen: Screen) -> None:
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    while data := os.read(output.fileno(), 65536):
        screen.pass_on(decode(data))


def _stop(name: str, process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()  # not SIGINT: a node that is still importing would print a traceback
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise DemoError(f"{name} did not end") from None


class Demo(Node):
    """Drives the talk node, and shows on the screen what comes out of it."""

    def __init__(self, screen: Screen) -> None:
        super().__init__("demo", namespace=NAMESPACE)
        self.screen = screen
        self.frames = self.refreshes = 0
        self.asked = 0  # stamp of the first sound on audio_in, ns
        self._newest = 0  # of the newest on audio_out
        self._state: Any = self.create_client(ChangeState, "talk/change_state")
        self._shown = Shown(self, screen, self.on_event)

    def until(
        self, condition: Callable[[], object], nodes: dict[str, subprocess.Popen[bytes]], timeout: float | None
    ) -> None:
        """Print what comes until the condition holds. Raises DemoError when a node has ended or time is up,
        Stopped.
        """
        start = time.monotonic()
        while not condition():
            if stop.is_set():
                raise Stopped
            rclpy.spin_once(self, timeout_sec=0.1)
            for name, process in nodes.items():
                if process.poll() is not None and (process.returncode or name != QUESTION):
                    raise DemoError(f"{name} ended with code {process.returncode}; what it wrote is above")
            if timeout is not None and time.monotonic() - start > timeout:
                raise DemoError(f"nothing happened for {timeout:.0f} s")

    def change_state(self, transition: int, nodes: dict[str, subprocess.Popen[bytes]]) -> None:
        self.until(self._state.service_is_ready, nodes, START_SECONDS)
        future = self._state.call_async(ChangeState.Request(transition=Transition(id=transition)))
        self.until(future.done, nodes, LOAD_SECONDS)
        if not future.result().success:
            raise DemoError("the talk node refused; its reason is above")

    def is_shown(self) -> bool:
        """There is a camera."""
        return self.count_publishers(f"{NAMESPACE}/image/compressed") > 0

    def has_heard(self, seconds: float) -> bool:
        """The answer to so much of the sound that it was asked with."""
        return bool(self.asked) and self._newest - self.asked >= seconds * 1e9

    def on_event(self, event: dict[str, Any]) -> None:
        """Of the conversation, as Observer tells them."""
        if event["kind"] == "level" and event["side"] == "user":
            self.asked = self.asked or event["stamp"]
        elif event["kind"] == "level":
            self.frames += 1
            self._newest = event["stamp"]
        elif event["kind"] == "sight" and event["refreshes"] > self.refreshes:
            self.refreshes = event["refreshes"]
            self.screen.note(f"[sees a new picture: {event['reason']}, encoded in {event['encode_ms']:.0f} ms]")
