"""A long conversation over DDS beside other load: is it exact, is it in time, does it grow?

    python benchmarks/soak.py [--minutes 20] [--load 4] [--chunk 0.02] [--model builtin]

audio_file asks the same question again and again; the talk node answers. Printed are the latency from the end of a frame
in the air to its answer, the frames sent and heard, what the node counted, the steps of the stamps, and the memory of
node and engine. The exit code is 0 where one frame was heard for every 80 ms of sound, and stamps rise. The package must be
built.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from moshivis_ros.msg import Audio
from rclpy.node import Node
from rich.progress import Progress

from moshivis_ros.audio.files import read, write
from moshivis_ros.nodes.messages import to_nanoseconds

NODES = Path(os.environ.get("AMENT_PREFIX_PATH", sys.prefix).split(os.pathsep)[0]) / "lib" / "moshivis_ros"
QUESTION = Path(__file__).parents[1] / "media" / "question.wav"
FRAME = 80_000_000
BUSY = "while True: sum(range(100000))"


class Listener(Node):
    def __init__(self) -> None:
        super().__init__("soak", namespace="soak")
        self.stamps: list[int] = []
        self.latency: list[float] = []
        self.samples = self.lost = self._expected = 0
        self.first = self.last = 0  # stamps of the sound, nanoseconds
        self.counts: dict[str, str] = {}
        self.create_subscription(Audio, "audio_out", self._on_answer, 1000)
        self.create_subscription(Audio, "audio_in", self._on_sound, 1000)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def _on_answer(self, message: Audio) -> None:
        stamp = to_nanoseconds(message.header.stamp)
        self.stamps.append(stamp)
        self.latency.append((time.time_ns() - stamp - FRAME) / 1e6)

    def _on_sound(self, message: Audio) -> None:
        self.first = self.first or to_nanoseconds(message.header.stamp)
        self.last = to_nanoseconds(message.header.stamp)
        self.samples += len(message.data)
        self.lost += message.index - self._expected
        self._expected = message.index + 1

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.startswith("/soak/talk"):
                self.counts |= {pair.key: pair.value for pair in status.values}

    def change(self, transition: int) -> None:
        client: Any = self.create_client(ChangeState, "talk/change_state")
        client.wait_for_service()
        future = client.call_async(ChangeState.Request(transition=Transition(id=transition)))
        rclpy.spin_until_future_complete(self, future)
        if not future.result().success:
            sys.exit("the talk node refused; its reason is above")


def start(name: str, **parameters: object) -> subprocess.Popen[bytes]:
    given = [text for key, value in parameters.items() for text in ("-p", f"{key}:={value}")]
    return subprocess.Popen([NODES / name, "--ros-args", "-r", "__ns:=/soak", "--log-level", "warn", *given])


def memory(pid: int) -> dict[str, float]:
    """MB in use: of the node, and of its engine."""
    (engine,) = (task.read_text() for task in Path(f"/proc/{pid}/task").glob("*/children") if task.read_text())
    pids = {"node": pid, "engine": int(engine)}
    statm = {name: Path(f"/proc/{number}/statm").read_text().split() for name, number in pids.items()}
    return {name: int(pages[1]) * os.sysconf("SC_PAGESIZE") / 1e6 for name, pages in statm.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--load", type=int, default=0, help="programs that only compute, beside it (%(default)s)")
    parser.add_argument("--chunk", type=float, default=0.02, help="seconds of a message of sound (%(default)s)")
    parser.add_argument("--model", default="builtin")
    options = parser.parse_args()
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    rclpy.init(args=[])
    listener, processes = Listener(), []
    try:
        with tempfile.TemporaryDirectory() as folder:
            pause = np.zeros(8 * 24000, np.float32)
            write(Path(folder, "sound.wav"), np.concatenate([read(QUESTION), pause]))
            talk = start("talk", model=options.model)
            processes.append(talk)
            listener.change(Transition.TRANSITION_CONFIGURE)
            processes += [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(options.load)]
            processes.append(
                start("audio_file", path=f"{folder}/sound.wav", loop="true", listeners=2, chunk=options.chunk)
            )
            listener.change(Transition.TRANSITION_ACTIVATE)
            early = follow(listener, talk, options.minutes * 60)
            late = memory(talk.pid)
            processes.pop().terminate()
            end = time.monotonic() + 5
            while time.monotonic() < end:  # what is on its way; and a last report
                rclpy.spin_once(listener, timeout_sec=0.1)
    except KeyboardInterrupt:
        return 130
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait()
    return report(listener, early, late)


def follow(listener: Listener, talk: subprocess.Popen[bytes], seconds: float) -> dict[str, float]:
    """Listen; the memory after a quarter of the time."""
    begin, early = time.monotonic(), None
    with Progress() as progress:
        task = progress.add_task("talking", total=seconds)
        while (elapsed := time.monotonic() - begin) < seconds:
            rclpy.spin_once(listener, timeout_sec=0.2)
            progress.update(task, completed=elapsed)
            if early is None and elapsed > seconds / 4:
                early = memory(talk.pid)
    return early or memory(talk.pid)


def report(listener: Listener, early: dict[str, float], late: dict[str, float]) -> int:
    stamps = np.array(listener.stamps)
    counts = {key: int(value) for key, value in listener.counts.items() if value.isdigit()}
    silent, skipped = (counts[f"frames of silence {what}"] for what in ("(no audio)", "skipped"))
    dropped = sum(count for name, count in counts.items() if name.startswith("frames dropped"))
    sent, heard = listener.samples // 1920, int(((stamps >= listener.first) & (stamps <= listener.last)).sum())
    p50, p99 = np.percentile(listener.latency, [50, 99])
    steps = np.diff(stamps) / FRAME
    print(f"load {os.getloadavg()[0]:.1f}; latency p50 {p50:.0f} ms, p99 {p99:.0f} ms")
    print(f"frames: sent {sent}, heard in that time {heard}; since it was loaded silence {silent}, left out {skipped}, dropped {dropped}; "
          f"messages lost on the way here {listener.lost}, to the robot {counts['audio messages lost']}")  # fmt: skip
    print(f"stamps: {(steps <= 0).sum()} of {len(steps)} steps back, {(np.abs(steps - 1) > 0.01).sum()} not 80 ms")
    for name, size in late.items():
        print(f"memory of the {name}: {early[name]:.0f} MB after a quarter of the time, {size:.0f} MB at the end")
    exact = abs(sent - heard) <= 2
    print("exact" if exact else "NOT exact")
    return int(not exact or bool((steps <= 0).any()))


if __name__ == "__main__":
    sys.exit(main())
