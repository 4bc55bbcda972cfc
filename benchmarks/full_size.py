"""The released layout at full size, with random weights, on this CPU: does it fit, does it talk, and how slowly?

    moshivis init FOLDER --size full                  17.0 GB on disk, once
    python benchmarks/full_size.py FOLDER [--seconds 1] [--threads 2] [--forms int4 int8]

For each form of weights `moshivis chat --audio` runs in a process of its own with a question and a picture, in bfloat16.
Printed: the memory at its peak that no file holds, beside what `python benchmarks/quantization.py memory` counts; and the
time of a step beside the bytes that it must read over the bandwidth that was measured in the same process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

MEDIA = Path(__file__).parents[1] / "media"
FORMS = {"int8": ("int8", ""), "int8w": ("int8", "int8"), "int4": ("int4", ""), "int4w": ("int4", "int8")}


def anonymous() -> int:
    """Bytes of this process that no file holds."""
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) * 1024


def talk(folder: str, form: str, seconds: float, threads: int) -> dict[str, Any]:
    """Run the command, in this process; what is seen of it on the way."""
    import torch

    from moshivis_ros import cli, conversation
    from moshivis_ros.audio import SAMPLE_RATE, files
    from moshivis_ros.model.cost import memory, read_bandwidth

    torch.set_num_threads(threads)
    quantize, kv_cache = FORMS[form]
    times: list[float] = []
    seen: dict[str, Any] = {"start": anonymous() / 1e9}
    peak = [0]
    over = threading.Event()
    real = conversation.Conversation

    class Watched(real):
        def __init__(self, model: Any, *args: Any, **kwargs: Any) -> None:
            seen["model"] = anonymous() / 1e9 - seen["start"]
            seen["loading"] = time.perf_counter() - begin
            parts = memory(model, kv_cache or None)
            seen["counted"] = sum(parts.values()) / 1e9
            seen["read"] = parts["linear layers of a step"]
            seen["bandwidth"] = read_bandwidth(torch.device("cpu"))
            super().__init__(model, *args, **kwargs)
            times.clear()  # of the warm-up

        def step(self, pcm: Any) -> Any:
            start = time.perf_counter()
            frame = super().step(pcm)
            times.append(time.perf_counter() - start)
            return frame

    def watch() -> None:
        while not over.wait(0.02):
            peak[0] = max(peak[0], anonymous())

    conversation.Conversation = Watched  # type: ignore[misc]
    begin = time.perf_counter()
    threading.Thread(target=watch, daemon=True).start()
    with tempfile.TemporaryDirectory() as place:
        question = files.read(MEDIA / "question.wav")[: round(seconds * SAMPLE_RATE)]
        files.write(Path(place) / "question.wav", question)
        command = ["chat", "--model", folder, "--audio", f"{place}/question.wav", "--tail", "0.5"]
        command += ["--image", str(MEDIA / "scene_a.jpg"), "--out", f"{place}/answer.wav", "--device", "cpu"]
        command += ["--dtype", "bfloat16", "--quantize", quantize, "--kv-cache", kv_cache or "none", "--seed", "0"]
        code = cli.main(command)
        voice = files.read(f"{place}/answer.wav")
    over.set()
    assert code == 0 and len(voice) == len(question) + SAMPLE_RATE // 2
    frame = statistics.median(times)
    floor = seen["read"] / seen["bandwidth"]
    return {**seen, "peak": peak[0] / 1e9, "frames": len(times), "frame": frame, "floor": floor, "best": min(times)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--seconds", type=float, default=1.0, help="of the question (%(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(talk(args.folder, args.child, args.seconds, args.threads)))
        return 0
    for form in args.forms:
        command = [sys.executable, __file__, args.folder, "--child", form]
        command += ["--seconds", str(args.seconds), "--threads", str(args.threads)]
        lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
        found = json.loads(lines[-1])
        print(
            f"{form}: counted {found['counted']:.2f} GB (Mimi apart), peak {found['peak'] - found['start']:.2f} GB above "
            f"{found['start']:.2f} GB; loaded in {found['loading']:.0f} s; a frame {found['frame']:.2f} s (best "
            f"{found['best']:.2f}, {found['frames']} frames): {found['frame'] / found['floor']:.1f} (best "
            f"{found['best'] / found['floor']:.1f}) times {found['read'] / 1e9:.2f} GB at {found['bandwidth'] / 1e9:.1f} GB/s",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
