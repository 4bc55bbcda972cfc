"""Milliseconds to read a VGA JPEG (file and message), a VGA video and a 10 s WAV; beside those of another checkout, in turns.

    python benchmarks/reading.py [--against CHECKOUT] [--limit 1.2]

CPU time of one core, the least of ROUNDS rounds in processes of their own. With a limit the exit code is 1 where a reading
takes more than that many times as long as in the other checkout.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import wave
from pathlib import Path

import cv2
import numpy as np

ROUNDS = 7
MEASURE = """
import json, sys, time, warnings
from pathlib import Path
import cv2
warnings.simplefilter("ignore")
cv2.setNumThreads(1)
from moshivis_ros.audio import files
from moshivis_ros.vision import sources
try:
    from moshivis_ros.vision.encoded import decode_compressed
except ImportError:  # where it was before
    from moshivis_ros.vision.encodings import decode_compressed
folder = Path(sys.argv[1])
jpeg = (folder / "vga.jpg").read_bytes()
works = {
    "JPEG file": (60, lambda: sources.photo(folder / "vga.jpg")),
    "JPEG message": (60, lambda: decode_compressed(jpeg, "jpeg")),
    "video, 50 frames": (2, lambda: sum(1 for _ in sources.video(folder / "vga.avi"))),
    "WAV, 10 s": (4, lambda: files.read(folder / "ten.wav")),
}
spent = {}
for name, (times, work) in works.items():
    work()
    best = float("inf")
    for _ in range(times):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    spent[name] = best * 1e3
print(json.dumps(spent))
"""


def write_inputs(folder: Path) -> None:
    rng = np.random.default_rng(0)
    scene = cv2.normalize(cv2.blur(rng.normal(0, 1, (480, 640, 3)), (9, 9)), None, 0, 255, cv2.NORM_MINMAX)
    picture = np.clip(scene + rng.normal(0, 4, scene.shape), 0, 255).astype(np.uint8)
    cv2.imwrite(str(folder / "vga.jpg"), picture)
    video = cv2.VideoWriter(str(folder / "vga.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, (640, 480))
    for n in range(50):
        video.write(np.roll(picture, n, 1))
    video.release()
    with wave.open(str(folder / "ten.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(48000)
        file.writeframes((rng.normal(0, 3000, 960_000)).astype("<i2").tobytes())


def measure(checkout: Path, folder: str) -> dict[str, float]:
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", MEASURE, folder]
    done = subprocess.run(command, cwd=checkout, env=environment, check=True, stdout=subprocess.PIPE)
    return dict(json.loads(done.stdout))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="an older checkout of this repository")
    parser.add_argument("--limit", type=float, metavar="X", help="how many times as long a reading may take")
    args = parser.parse_args()
    checkouts = [Path(__file__).resolve().parents[1], *([args.against.resolve()] if args.against else [])]
    rounds: list[list[dict[str, float]]] = [[] for _ in checkouts]
    with tempfile.TemporaryDirectory() as folder:
        write_inputs(Path(folder))
        for _ in range(ROUNDS):
            for taken, checkout in zip(rounds, checkouts):
                taken.append(measure(checkout, folder))
    slower = False
    print(f"{'ms of one core':20}{'this':>10}" + (f"{'other':>10}{'ratio':>8}" if args.against else ""))
    for name in rounds[0][0]:
        least = [min(spent[name] for spent in taken) for taken in rounds]
        ratio = f"{least[0] / least[1]:8.2f}" if args.against else ""
        slower |= bool(args.against and args.limit and least[0] > args.limit * least[1])
        print(f"{name:20}" + "".join(f"{ms:10.3f}" for ms in least) + ratio)
    return int(slower)


if __name__ == "__main__":
    sys.exit(main())
