"""Does a page slow the conversation down? Frame times of the talk node with and without the dashboard and one WebSocket
client on it, in turns. (A browser on the same cores would be measured as a browser.)

    python benchmarks/dashboard_load.py [--model FOLDER] [--seconds 10] [--rounds 6]

The talk node and its engine, a VGA camera of 10 Hz and a microphone over DDS; the package must be built. The default model
is a random tiny one: where a step takes little time, a disturbance shows most.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import cv2
import numpy as np
import rclpy
from camera_load import Timed, compare, start

from moshivis_ros.audio.files import write
from moshivis_ros.model.init import init_checkpoint

PORT = 18765
WITHOUT, WITH = "no dashboard", "dashboard, 1 client"


async def watch() -> None:
    """A client that takes everything, the voice too, until it is killed."""
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.ws_connect(f"http://127.0.0.1:{PORT}/ws", max_msg_size=0) as socket:
                    await socket.send_str('{"do": "hear", "on": true}')
                    async for _ in socket:
                        pass
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--client", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        asyncio.run(watch())
    times: dict[str, list[float]] = {WITHOUT: [], WITH: []}
    with tempfile.TemporaryDirectory() as folder:
        noise = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
        cv2.imwrite(f"{folder}/picture.png", noise)
        write(f"{folder}/sound.wav", np.sin(np.arange(48000) / 20).astype(np.float32) / 2)
        if not options.model:
            init_checkpoint(Path(folder, "model"))
        rclpy.init(args=["--ros-args", "-p", f"model:={options.model or f'{folder}/model'}"])
        processes = [
            start("audio_file", path=f"{folder}/sound.wav", loop="true"),
            start("video_file", path=f"{folder}/picture.png", rate=10.0, loop="true", format="jpeg"),
        ]
        talk = Timed()
        try:
            talk.trigger_configure()
            for number in range(1 + 2 * options.rounds):
                shown = []
                if number % 2 == 0:
                    shown = [
                        start("dashboard", port=PORT),
                        subprocess.Popen([sys.executable, __file__, "--client"]),
                    ]
                    processes += shown
                    time.sleep(5.0)  # starting is not showing
                frames = talk.round(options.seconds)
                for process in shown:
                    process.terminate()
                    process.wait()
                    processes.remove(process)
                if not frames or not frames[-1].sight.has_image:
                    sys.exit("the conversation got no sound or no picture; what the nodes say is above")
                if number:
                    times[WITH if shown else WITHOUT] += [f.milliseconds for f in frames]
        finally:
            for process in processes:
                process.terminate()
                process.wait()
            talk.close()
            talk.destroy_node()
            rclpy.shutdown()
    compare(times)


if __name__ == "__main__":
    main()
