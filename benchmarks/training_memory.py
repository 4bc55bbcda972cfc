"""Is the memory that `moshivis train --plan` tells the memory that a step takes? Against two counts that are not its own:

- torch's MemTracker, on tensors without memory, at any size (full: a minute);
- the same on pretended CUDA tensors (--pretend), of the way forward alone, for a torch without CUDA cannot go back on them;
- the allocations that torch's profiler sees on the CPU, on real tensors, at small size (--real);
- what CUDA's allocator held on a GPU, with the steps a second, on random weights of any size (--real --device cuda).
"""

from __future__ import annotations

import argparse
import time
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from moshivis_ros.bench.sizes import SIZES
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.training.learner import Learner, Options
from moshivis_ros.training.plan import Allocated, batch_of, blank, count, fill, remembered, step


def tracked(config: ModelConfig, options: Options, bfloat16: bool) -> int:
    """Bytes at the peak of a step, by torch's MemTracker."""
    from torch.distributed._tools.mem_tracker import MemTracker

    learner = blank(config, options, bfloat16)
    with FakeTensorMode():
        fill(learner)
        _tracked_ones_learn(learner)
        optimizer = torch.optim.AdamW(learner.groups(), lr=1e-3, fused=True)
        remembered(optimizer)
        tracker = MemTracker()
        tracker.track_external(learner, optimizer)
        with tracker:
            step(learner, optimizer, batch_of(config, options, bfloat16, True))
        return int(tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"])


def _tracked_ones_learn(learner: Learner) -> None:
    """MemTracker wants every parameter to learn: the others become buffers."""
    for module in list(learner.modules()):
        for name, parameter in list(module.named_parameters(recurse=False)):
            if not parameter.requires_grad:
                delattr(module, name)
                module.register_buffer(name, parameter.detach())


def forward_on_pretended_cuda(config: ModelConfig, options: Options) -> tuple[int, int]:
    """Bytes at the peak of the way forward in bfloat16: as the plan counts, and by MemTracker on CUDA tensors."""
    from fake_cuda import fake_cuda
    from torch.cuda.amp import common
    from torch.distributed._tools.mem_tracker import MemTracker

    learner = blank(config, options, True)
    with FakeTensorMode():
        fill(learner)
        batch = batch_of(config, options, True, True)
        with Allocated(learner, torch.optim.AdamW(learner.groups())) as allocated:
            learner(batch)
    learner = blank(config, options, True)
    there = mock.patch.object(common, "amp_definitely_not_available", lambda: False)
    able = mock.patch.object(torch.cuda, "is_bf16_supported", lambda *_: True)
    with fake_cuda(), there, able:
        with torch.device("cuda"):
            fill(learner)
            batch = batch_of(config, options, True, True)
        _tracked_ones_learn(learner)
        tracker = MemTracker()
        tracker.track_external(learner)
        with tracker:
            learner(batch)
        peak = tracker.get_tracker_snapshot("peak")
    return allocated.peak, sum(sizes["Total"] for device, sizes in peak.items() if device.type == "cuda")


def measured(config: ModelConfig, options: Options, bfloat16: bool) -> int:
    """Bytes at the peak of a step on this CPU: what there was before, and what the profiler saw allocated on top."""
    learner = fill(blank(config, options, bfloat16))
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.normal_(std=0.02)
    optimizer = torch.optim.AdamW(learner.groups(), lr=1e-3, fused=True)
    remembered(optimizer)
    batch = batch_of(config, options, bfloat16, True)
    there = [*learner.parameters(), *learner.buffers(), *batch]
    there += [t for state in optimizer.state.values() for t in state.values()]
    before = sum(tensor.numel() * tensor.element_size() for tensor in there)
    step(learner, optimizer, batch)  # once, for what is made only once
    optimizer.zero_grad(set_to_none=True)
    with torch.profiler.profile(profile_memory=True) as profile:
        step(learner, optimizer, batch)
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return before + most


def on_gpu(config: ModelConfig, options: Options, bfloat16: bool, steps: int = 10) -> int:
    """The most that CUDA's allocator held; prints the time of a step."""
    learner = blank(config, options, bfloat16)
    with torch.device("cuda"):
        fill(learner)
        batch = batch_of(config, options, bfloat16, True)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.normal_(std=0.02)
    optimizer = torch.optim.AdamW(learner.groups(), lr=1e-3, fused=True)
    for _ in range(3):
        step(learner, optimizer, batch)
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(steps):
        step(learner, optimizer, batch)
    torch.cuda.synchronize()
    seconds = (time.perf_counter() - began) / steps
    print(
        f"{seconds:.3f} s for {options.batch} samples of {options.seconds:g} s, {options.batch / seconds:.2f} a second"
    )
    return torch.cuda.max_memory_allocated()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--frozen", choices=("as computed", "int8"), default="as computed")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--real", action="store_true", help="measure on a real device")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="with --real (%(default)s)")
    parser.add_argument("--pretend", action="store_true", help="forward alone, on pretended CUDA tensors")
    args = parser.parse_args()
    options = Options("", ("",), frozen=args.frozen, batch=args.batch, seconds=args.seconds)
    if args.pretend:
        planned, other = forward_on_pretended_cuda(SIZES[args.size], options)
        print(
            f"{args.size}, forward: as planned {planned / 1e9:.3f} GB, on pretended CUDA {other / 1e9:.3f} GB"
        )
        return
    planned = count(SIZES[args.size], options, True).memory.total
    real = measured if args.device == "cpu" else on_gpu
    other = (real if args.real else tracked)(SIZES[args.size], options, True)
    how = "measured" if args.real else "by MemTracker"
    print(
        f"{args.size}: planned {planned / 1e9:.3f} GB, {how} {other / 1e9:.3f} GB: {planned / other - 1:+.1%}"
    )


if __name__ == "__main__":
    main()
