"""What the listener costs while nobody speaks, and how long after the end of speech its result comes.

    python benchmarks/listening.py MODEL [--seconds 30] [--times 10]

Runs the built node; sound comes as from the microphone node, 20 ms a message, in real time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import rclpy
from moshivis_ros.msg import Audio, Speaking, Transcript
from rclpy.node import Node

from moshivis_ros.audio.files import read
from moshivis_ros.audio.pcm import encode
from moshivis_ros.nodes.demo import prefix, shared
from moshivis_ros.nodes.messages import to_audio, to_nanoseconds

CHUNK = 480  # samples


class Microphone(Node):
    """Room noise, and recordings in it."""

    def __init__(self) -> None:
        super().__init__("microphone")
        self.sound = np.zeros(0, np.float32)
        self.results: list[tuple[float, Transcript]] = []  # time.time() at which they came
        self.speaking: list[Speaking] = []
        self._publisher = self.create_publisher(Audio, "audio_in", 100)
        self.create_subscription(Transcript, "user_transcript", lambda m: self.results.append((time.time(), m)), 10)
        self.create_subscription(Speaking, "speaking", self.speaking.append, 10)
        self._begin, self._index = time.time_ns(), 0
        self._rng = np.random.default_rng(0)
        self.create_timer(0.02, self._on_timer)

    def _on_timer(self) -> None:
        while self._begin + (self._index + 1) * 20_000_000 <= time.time_ns():
            now, self.sound = self.sound[:CHUNK], self.sound[CHUNK:]
            samples = np.pad(now, (0, CHUNK - now.size)) + 0.001 * self._rng.standard_normal(CHUNK)
            data = encode(samples.astype(np.float32)).tobytes()
            self._publisher.publish(to_audio(data, self._index, self._begin + self._index * 20_000_000))
            self._index += 1


def cpu(pid: int) -> float:
    """Seconds of a core that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--seconds", type=float, default=30.0, help="of silence (%(default)s)")
    parser.add_argument("--times", type=int, default=10, help="that a question is asked (%(default)s)")
    options = parser.parse_args()
    rclpy.init()
    microphone = Microphone()
    command = [prefix() / "lib" / "moshivis_ros" / "listener", "--ros-args", "-p", f"model:='{options.model}'"]
    listener = subprocess.Popen([str(part) for part in command])
    threading.Thread(target=rclpy.spin, args=(microphone,), daemon=True).start()
    try:
        while not microphone.speaking:
            time.sleep(0.1)
        time.sleep(2)
        before = cpu(listener.pid)
        time.sleep(options.seconds)
        print(f"nobody speaks: {100 * (cpu(listener.pid) - before) / options.seconds:.1f} % of a core")
        delays = []
        before = cpu(listener.pid)
        for _ in range(options.times):
            number = len(microphone.results)
            microphone.sound = read(shared("media") / "what_do_you_see.wav")
            while not any(message.final for _, message in microphone.results[number:]):
                time.sleep(0.01)
            came, message = microphone.results[-1]
            delays.append(came - to_nanoseconds(message.header.stamp) / 1e9)
            time.sleep(1)
        used = (cpu(listener.pid) - before) / options.times
        print(f"result after the end of speech: {statistics.median(delays):.2f} s median, {max(delays):.2f} s at most, of {len(delays)};"
              f" {used:.2f} s of a core each")  # fmt: skip
    finally:
        listener.terminate()
        listener.wait()
        rclpy.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
