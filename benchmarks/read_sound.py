"""How long reading a recording takes, side by side with an older checkout.

    git worktree add /tmp/before b6ee8b1
    python benchmarks/read_sound.py --before /tmp/before

Both read the same files in turns, each in a process of its own, so that whatever else the machine does falls on both.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import wave
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parents[1]
SECONDS = 10
KINDS = [(24000, 1), (16000, 1), (44100, 1), (48000, 2)]  # Hz, channels
WORKER = """
import sys, time
from moshivis_ros.audio import files
for line in sys.stdin:
    start = time.perf_counter()
    files.read(line.strip())
    print(time.perf_counter() - start, flush=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", type=Path, required=True, metavar="FOLDER", help="the older checkout")
    parser.add_argument("--turns", type=int, default=100)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workers = [worker(args.before), worker(HERE)]
        print(f"| {SECONDS} s of 16-bit WAV | before, ms | now, ms | ratio |\n|---|---|---|---|")
        for rate, channels in KINDS:
            path = recording(Path(folder), rate, channels)
            for process in workers:  # once for all that happens only once
                timed(process, path)
            times = [[timed(process, path) for process in workers] for _ in range(args.turns)]
            before, now = (1000 * statistics.median(column) for column in zip(*times))
            print(f"| {rate} Hz, {channels} channels | {before:.2f} | {now:.2f} | {now / before:.2f} |")
        for process in workers:
            process.communicate()


def recording(folder: Path, rate: int, channels: int) -> Path:
    path = folder / f"{rate}-{channels}.wav"
    noise = np.random.default_rng(0).normal(0, 3000, SECONDS * rate * channels).astype(np.int16)
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, 2, rate, 0, "NONE", ""))
        file.writeframes(noise.tobytes())
    return path


def worker(checkout: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER], cwd=checkout, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def timed(process: subprocess.Popen[str], path: Path) -> float:
    """Seconds of one reading."""
    assert process.stdin and process.stdout
    process.stdin.write(f"{path}\n")
    process.stdin.flush()
    return float(process.stdout.readline())


if __name__ == "__main__":
    main()
