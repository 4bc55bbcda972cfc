"""Does a long conversation stay as quick, as small and as right as a short one?

    python benchmarks/long_conversation.py [FRAMES] [DEVICE]

Runs 10,000 frames (13 minutes of sound) at tiny size with the released window of 3000 frames, greedy, float32: the
replayed step and the plain one in turns, with a new picture every 100 frames. Prints whether every token is equal, the
median time of a replayed step in frames 3001-4000 and in the last 1000, and the memory at both.
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


def main(frames: int, device: str) -> int:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = dataclasses.replace(ModelConfig.preset("tiny"), context=CONTEXT)
    model = MoshiVis(config).requires_grad_(False).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model = model.to(device)
    plain, replayed = Stream(model), Stream(model)
    replayed.record()
    for stream in (plain, replayed):
        stream.set_sampling(GREEDY)
    codes = torch.randint(config.audio_card, (frames, 1, config.user_q), device=device)
    pictures = [model.image_kv(torch.rand(1, 3, 56, 56, device=device)) for _ in range(5)] + [None]
    times, memory, different, seen = [], [], 0, set()
    for i in range(frames):
        if i % 100 == 0:
            for stream in (plain, replayed):
                stream.set_image(pictures[i // 100 % len(pictures)])
            memory.append(_memory(device))
        expected = plain.step(codes[i]).tokens.clone()
        # CPU time of this thread where it does the work: other programs must not count
        clock = time.perf_counter if device.startswith("cuda") else time.thread_time
        start = clock()
        found = replayed.step(codes[i]).tokens.cpu()
        times.append((clock() - start) * 1e3)
        different += not torch.equal(expected.cpu(), found)
        seen.add(tuple(found[0].tolist()))
    early, late = times[CONTEXT : CONTEXT + 1000], times[-1000:]
    print(
        f"{frames} frames, context {CONTEXT}, {device}: {different} frames with another token, {len(seen)} answers"
    )
    if frames >= CONTEXT + 2000:
        first, last = statistics.median(early), statistics.median(late)
        print(
            f"median step {first:.2f} ms in frames 3001-4000, {last:.2f} ms in the last 1000: {last / first - 1:+.1%}"
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
