"""The command: arguments, the model that is measured, the report."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from datetime import date
from pathlib import Path
from typing import Any

import moshivis_ros.model  # noqa: F401  before torch: it says how to install torch when it is missing

# isort: split
import torch

from moshivis_ros import arguments
from moshivis_ros.bench.measure import FRAME_MS, Bench
from moshivis_ros.bench.random_model import random_model
from moshivis_ros.bench.reference import load_reference
from moshivis_ros.bench.sizes import SIZES
from moshivis_ros.errors import ConfigError, MissingDependencyError
from moshivis_ros.model.checkpoint import load_model, resolve
from moshivis_ros.model.codec import Codec, build_mimi
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.device import STEP, computing, find_device
from moshivis_ros.model.lm import MoshiVis
from moshivis_ros.model.quantize import FORMS, quantize


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Measures every stage of a frame (80 ms of sound), and the least that the weights' bytes allow."
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--model", help="checkpoint folder or Hugging Face repo id")
    which.add_argument(
        "--size", choices=SIZES, default="builtin", help="random weights of this size (%(default)s)"
    )
    parser.add_argument("--adapters", help="folder of `moshivis train`, put into --model")
    parser.add_argument(
        "--device",
        type=arguments.device,
        default="auto",
        help="cpu, cuda, ... (auto: the GPU where there is one)",
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="default: as in talking")
    parser.add_argument("--quantize", choices=FORMS, help="weights of language model and depformer")
    parser.add_argument("--kv-cache", choices=("int8",), help="attention window (default: as the model)")
    parser.add_argument("--compile", action="store_true", help="fuse operations with torch.compile first")
    parser.add_argument(
        "--frames",
        type=arguments.whole(1, 1_000_000),
        default=200,
        help="frames of each measurement (%(default)s)",
    )
    parser.add_argument(
        "--threads", type=arguments.whole(1, 1024), default=1, help="CPU threads (%(default)s)"
    )
    parser.add_argument(
        "--reference", metavar="CHECKOUT", help="a checkout of kyutai-labs/moshivis to run in turns with ours"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument("--note", default="", help="kept in the figures: the board, its power mode, ...")


def run(args: argparse.Namespace) -> int:
    torch.set_num_threads(args.threads)
    device = find_device(args.device)
    default = torch.bfloat16 if device.type == "cuda" else torch.float32
    dtype = getattr(torch, args.dtype) if args.dtype else default
    # The reference cannot quantise: it gets the weights before that is done.
    form = None if args.reference else args.quantize
    model = _load(args.model, args.size, device, dtype, form, args.adapters)
    codec = _codec(args.model, model.config, device)
    reference = (
        load_reference(args.reference, model, torch.float32 if device.type == "cpu" else dtype)
        if args.reference
        else None
    )
    if args.reference and args.quantize:
        quantize(model, args.quantize)
    with computing(device, STEP):  # as a conversation does
        bench = Bench(model, codec, args.frames, args.compile, args.kv_cache)
        figures = bench.measure()
        if reference is not None:
            figures["reference"] = bench.compare(reference)
    result = {
        "date": date.today().isoformat(),
        "device": _device_name(device),
        "command": "moshivis " + " ".join(sys.argv[1:]),
        "note": args.note,
        "torch": torch.__version__,
        "model": args.model or args.size,
        "dtype": str(dtype).removeprefix("torch."),
        "quantize": args.quantize or model.config.quantize,
        "kv_cache": args.kv_cache,
        "threads": args.threads,
        **figures,
    }
    print(_report(result))
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


def _load(
    folder: str | None,
    size: str,
    device: torch.device,
    dtype: torch.dtype,
    form: str | None,
    adapters: str | None,
) -> MoshiVis:
    if folder is not None:
        return load_model(resolve(folder), device, dtype, form, adapters=adapters)
    if adapters is not None:
        raise ConfigError("--adapters go into a checkpoint: name it with --model")
    return random_model(SIZES[size], device, dtype, form)


def _codec(folder: str | None, config: ModelConfig, device: torch.device) -> Codec | None:
    try:
        if folder is not None:
            return Codec.load(resolve(folder), config, device)
        return build_codec(config, device)
    except MissingDependencyError as error:
        print(f"without Mimi: {error}", file=sys.stderr)
        return None


def build_codec(config: ModelConfig, device: torch.device) -> Codec:
    """One of random weights."""
    with device:
        mimi = build_mimi(config)
    for name, buffer in mimi.named_buffers():
        if name.endswith("_initialized"):
            buffer.fill_(1)
    return Codec(mimi.requires_grad_(False).eval())


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if "model name" in line] if info.exists() else []
    return names[0].split(":", 1)[1].strip() if names else platform.processor() or platform.machine()


def _report(result: dict[str, Any]) -> str:
    quantized = "".join(
        f", {result[key]} {what}"
        for key, what in (("quantize", "weights"), ("kv_cache", "window"))
        if result[key]
    )
    lines = [
        f"{result['device']}, {result['threads']} thread(s), torch {result['torch']}, {result['date']}",
        f"{result['model']}, {result['dtype']}{quantized}, {result['frames']} frames",
        f"{'ms':20}{'p50':>9}{'p95':>9}{'p99':>9}{'max':>9}",
    ]

    def row(name: str, stage: dict[str, float]) -> str:
        return f"{name:20}" + "".join(
            f"{stage[key]:9.2f}" for key in ("p50_ms", "p95_ms", "p99_ms", "max_ms")
        )

    lines += [row(name, stage) for name, stage in result["stages"].items()]
    if not result["mimi"]:
        lines.append("Mimi is absent (moshi is not installed): a frame is one without it")
    lines += [
        f"floor {result['floor_ms']:.2f} ms: {result['bytes_read'] / 1e6:.0f} MB at "
        f"{result['bandwidth_gb_s']:.1f} GB/s; a step takes {result['ratio_to_floor']:.2f} times that",
        "memory, counted: "
        + ", ".join(f"{part} {size:.1f}" for part, size in result["memory_mb"].items())
        + f"; sum {sum(result['memory_mb'].values()):.1f} MB",
        f"peak memory {result['peak_memory_mb']:.0f} MB; {result['late_frames']} frames over {FRAME_MS:.0f} ms",
    ]
    if "reference" in result:
        reference = result["reference"]
        lines += [
            "LM and depformer, in turns with the reference:",
            row("ours", reference["our_step"]),
            row("reference", reference["step"]),
            f"{reference['ratio_p50']:.2f} times faster by the median, {reference['ratio_of_best']:.2f} by the best; "
            f"same tokens (greedy) in {reference['greedy_frames_equal']} of {reference['greedy_frames']} frames",
        ]
    return "\n".join(lines)
