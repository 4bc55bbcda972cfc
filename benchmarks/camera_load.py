"""Does a camera slow the conversation down? Frame times of the talk node with and without 1080p at 30 Hz, in turns.

    python benchmarks/camera_load.py [--model FOLDER] [--seconds 10] [--rounds 6]

The talk node and its engine, a camera and a microphone over DDS; the package must be built. The default model is a
random tiny one: where a step takes little time, a disturbance shows most. The conversation has seen a picture
before the first round, so that a step is the same work in all of them. Percentiles are of all rounds' frames.
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

from moshivis_ros.audio.files import write
from moshivis_ros.engine.events import Spoken
from moshivis_ros.model.init import init_checkpoint
from moshivis_ros.nodes.spin import parts
from moshivis_ros.nodes.talk import Talk

NODES = Path(os.environ.get("AMENT_PREFIX_PATH", sys.prefix).split(os.pathsep)[0]) / "lib" / "moshivis_ros"
WARM_UP = 12  # frames of a round that do not count


def start(name: str, **parameters: object) -> subprocess.Popen[bytes]:
    arguments = [text for key, value in parameters.items() for text in ("-p", f"{key}:={value}")]
    return subprocess.Popen([NODES / name, "--ros-args", *arguments])


class Timed(Talk):
    """The talk node, which keeps what its engine says about each frame of a round."""

    def __init__(self) -> None:
        super().__init__()
        self._spoken: list[Spoken] = []

    def round(self, seconds: float) -> list[Spoken]:
        self._spoken = []
        self.trigger_activate()
        end = time.monotonic() + seconds
        with parts(self) as executor:
            while time.monotonic() < end:
                executor.spin_once(timeout_sec=0.1)
        self.trigger_deactivate()
        return self._spoken[WARM_UP:]

    def _on_spoken(self, spoken: Spoken) -> None:
        self._spoken.append(spoken)
        super()._on_spoken(spoken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=6)
    options = parser.parse_args()
    times: dict[str, list[float]] = {"no camera": [], "1080p at 30 Hz": []}
    with tempfile.TemporaryDirectory() as folder:
        noise = np.random.default_rng(0).integers(0, 255, (1080, 1920, 3), np.uint8)
        cv2.imwrite(f"{folder}/picture.png", noise)
        write(f"{folder}/sound.wav", np.sin(np.arange(48000) / 20).astype(np.float32) / 2)
        if not options.model:
            init_checkpoint(Path(folder, "model"))
        rclpy.init(args=["--ros-args", "-p", f"model:={options.model or f'{folder}/model'}"])
        processes = [start("audio_file", path=f"{folder}/sound.wav", loop="true")]
        talk = Timed()
        try:
            talk.trigger_configure()
            for number in range(1 + 2 * options.rounds):
                with_camera = number % 2 == 0
                if with_camera:
                    processes.append(
                        start("video_file", path=f"{folder}/picture.png", rate=30.0, loop="true")
                    )
                frames = talk.round(options.seconds)
                if with_camera:
                    processes[-1].terminate()
                    processes.pop().wait()
                if not frames or not frames[-1].sight.has_image:
                    sys.exit("the conversation got no sound or no picture; what the nodes say is above")
                if number:
                    times["1080p at 30 Hz" if with_camera else "no camera"] += [
                        f.milliseconds for f in frames
                    ]
        finally:
            for process in processes:
                process.terminate()
                process.wait()
            talk.close()
            talk.destroy_node()
            rclpy.shutdown()
    compare(times)


def compare(times: dict[str, list[float]]) -> None:
    """Print milliseconds of frames without something, and with it (in this order), and their ratio."""
    results = {name: np.percentile(values, [50, 99]) for name, values in times.items()}
    print(f"{'':20} {'frames':>8} {'p50 ms':>8} {'p99 ms':>8}")
    for name, (p50, p99) in results.items():
        print(f"{name:20} {len(times[name]):8} {p50:8.1f} {p99:8.1f}")
    without, beside = results.values()
    p50, p99 = beside / without
    print(f"{'ratio':20} {'':8} {p50:8.2f} {p99:8.2f}")


if __name__ == "__main__":
    main()
