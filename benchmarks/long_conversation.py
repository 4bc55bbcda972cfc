"""Does a long conversation stay as quick, as small and as right as a short one?

    python benchmarks/long_conversation.py [FRAMES] [DEVICE]

Runs 10,000 frames (13 minutes of sound) at tiny size with the released window of 3000 frames, greedy, float32: the
replayed step and the plain one in turns, with a new picture every 100 frames. A second conversation hears the same,
begun so late that it is in frames 3001-4000 while the first is in its last 1000: there the two are timed in turns, so
that a machine that gets slower meanwhile does not count. Prints whether every token is equal, both medians, their
ratio, and the memory.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time
from pathlib import Path

import torch

from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.lm import MoshiVis
from moshivis_ros.model.sampling import GREEDY
from moshivis_ros.model.stream import Stream

CONTEXT = 3000
MEASURED = 1000  # frames


def main(frames: int, device: str) -> int:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = dataclasses.replace(ModelConfig.preset("tiny"), context=CONTEXT)
    model = MoshiVis(config).requires_grad_(False).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model = model.to(device)
    plain, old, young = Stream(model), Stream(model), Stream(model)
    for stream in (old, young):
        stream.record()
    for stream in (plain, old, young):
        stream.set_sampling(GREEDY)
    codes = torch.randint(config.audio_card, (frames, 1, config.user_q), device=device)
    pictures = [model.image_kv(torch.rand(1, 3, 56, 56, device=device)) for _ in range(5)] + [None]
    # CPU time of this thread where it does the work: other programs must not count
    clock = time.perf_counter if device.startswith("cuda") else time.thread_time
    times: dict[Stream, list[float]] = {plain: [], old: [], young: []}

    def answer(stream: Stream, frame: int) -> list[int]:
        if frame % 100 == 0:
            stream.set_image(pictures[frame // 100 % len(pictures)])
        start = clock()
        tokens = stream.step(codes[frame]).tokens.cpu()
        times[stream].append((clock() - start) * 1e3)
        return tokens[0].tolist()

    behind = max(0, frames - CONTEXT - MEASURED)
    expected, memory, different = [], [], 0
    for i in range(frames):
        if i % 100 == 0:
            memory.append(_memory(device))
        expected.append(answer(plain, i))
        different += answer(old, i) != expected[i]
        if i >= behind:
            different += answer(young, i - behind) != expected[i - behind]
    answers = len(set(map(tuple, expected)))
    print(f"{frames} frames, context {CONTEXT}, {device}: {different} with another token, {answers} answers")
    if behind:
        first, last = (statistics.median(times[stream][-MEASURED:]) for stream in (young, old))
        print(
            f"median step, in turns: {first:.2f} ms in frames {CONTEXT + 1}-{CONTEXT + MEASURED}, {last:.2f} ms in "
            f"frames {frames - MEASURED + 1}-{frames}: {last / first - 1:+.1%}"
        )
    print(f"memory {memory[len(memory) * 3 // 10]:.1f} MB at 30 %, {memory[-1]:.1f} MB at the end")
    return int(different > 0)


def _memory(device: str) -> float:
    if device.startswith("cuda"):
        return torch.cuda.memory_allocated() / 1e6
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else 10_000, sys.argv[2] if sys.argv[2:] else "cpu"))
