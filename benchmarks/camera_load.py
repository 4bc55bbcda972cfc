"""Does a camera slow the conversation down? Frame times of the talk node with and without 1080p at 30 Hz, in turns.

    python benchmarks/camera_load.py [--model FOLDER] [--seconds 20] [--rounds 3]

Real nodes over DDS; the package must be built. The default model is a random tiny one: where a step takes little
time, a disturbance shows most.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.node import Node

from moshivis_ros.audio.files import write
from moshivis_ros.model.init import init_checkpoint

NAMES = ("frame time p50 (ms)", "frame time p99 (ms)")
NODES = Path(os.environ.get("AMENT_PREFIX_PATH", sys.prefix).split(os.pathsep)[0]) / "lib" / "moshivis_ros"


def start(name: str, **parameters: object) -> subprocess.Popen[bytes]:
    arguments = [text for key, value in parameters.items() for text in ("-p", f"{key}:={value}")]
    return subprocess.Popen([NODES / name, "--ros-args", *arguments])


class Bench(Node):
    def __init__(self) -> None:
        super().__init__("camera_load")
        self._state = self.create_client(ChangeState, "talk/change_state")
        self._state.wait_for_service()
        self._times: dict[str, float] = {}
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def change_state(self, transition: int) -> None:
        future = self._state.call_async(ChangeState.Request(transition=Transition(id=transition)))
        rclpy.spin_until_future_complete(self, future)
        if not future.result().success:
            sys.exit("the talk node refused; its reason is above")

    def measure(self, seconds: float) -> list[float]:
        """p50 and p99 of the frames of one conversation, milliseconds."""
        self.change_state(Transition.TRANSITION_ACTIVATE)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            rclpy.spin_once(self, timeout_sec=0.1)
        self.change_state(Transition.TRANSITION_DEACTIVATE)
        return [self._times[name] for name in NAMES]

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        for status in array.status:
            if status.name.endswith("talk: engine") and status.message.startswith("talking"):
                self._times = {pair.key: float(pair.value) for pair in status.values}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        noise = np.random.default_rng(0).integers(0, 255, (1080, 1920, 3), np.uint8)
        cv2.imwrite(f"{folder}/picture.png", noise)
        write(f"{folder}/sound.wav", np.sin(np.arange(48000) / 20).astype(np.float32) / 2)
        model = options.model or Path(folder, "model")
        if options.model is None:
            init_checkpoint(model)
        processes = [start("talk", model=model), start("audio_file", path=f"{folder}/sound.wav", loop="true")]
        rclpy.init()
        try:
            bench = Bench()
            bench.change_state(Transition.TRANSITION_CONFIGURE)
            without, with_camera = [], []
            for _ in range(options.rounds):
                without.append(bench.measure(options.seconds))
                camera = start("video_file", path=f"{folder}/picture.png", rate=30.0, loop="true")
                processes.append(camera)
                with_camera.append(bench.measure(options.seconds))
                camera.terminate()
                camera.wait()
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait()
            rclpy.shutdown()
    alone, loaded = np.median(without, axis=0), np.median(with_camera, axis=0)
    print(
        f"{'':20} {'p50 ms':>8} {'p99 ms':>8}   (medians of {options.rounds} rounds of {options.seconds:.0f} s)"
    )
    print(f"{'no camera':20} {alone[0]:8.1f} {alone[1]:8.1f}")
    print(f"{'1080p at 30 Hz':20} {loaded[0]:8.1f} {loaded[1]:8.1f}")
    print(f"{'ratio':20} {loaded[0] / alone[0]:8.2f} {loaded[1] / alone[1]:8.2f}")


if __name__ == "__main__":
    main()
