"""What a step of the released model launches on a GPU, and what it reads, counted without a GPU.

    python benchmarks/launches.py
    python benchmarks/launches.py --dtype float16 --size builtin

Launches: every operation that starts a kernel, with a picture and without, in all forms of weights and window. A
kernel costs 2 to 3 us in a CUDA graph on a desktop GPU and 4 to 6 us on an AGX Orin, whatever it does, and a step's
kernels wait for one another.
"""

from __future__ import annotations

import argparse
from collections import Counter
from unittest import mock

import torch
from fake_cuda import Launch, Launches, fake_cuda
from torch import nn

from moshivis_ros.bench.random_model import random_model
from moshivis_ros.bench.sizes import SIZES
from moshivis_ros.model.cost import bytes_per_step
from moshivis_ros.bench.command import build_codec
from moshivis_ros.model.codec import FRAME_SIZE
from moshivis_ros.model.lm import MoshiVis
from moshivis_ros.model.packed import Packed, PackedEmbedding, PackedLinear
from moshivis_ros.model.sampling import sample
from moshivis_ros.model.stream import Stream

FORMS = [(None, None), (None, "int8"), ("int8", None), ("int8", "int8"), ("int4", None), ("int4", "int8")]
# The released quantised files: bits of a level, columns that share a scale, and whether they share an offset.
RELEASED = {"q8_0": (8, 32, False), "mlx-q8": (8, 64, True), "mlx-q4": (4, 32, True)}


def packed(model: MoshiVis, bits: int, group: int, offsets: bool) -> None:
    """Put matrices of that form in place of those that the file holds so: all but the image encoder's."""
    for name, parent in list(model.named_modules()):
        for attribute, layer in list(parent.named_children()):
            if not isinstance(layer, (nn.Linear, nn.Embedding)) or name.startswith("image_prefix"):
                continue
            rows, columns = layer.weight.shape
            type_ = torch.uint8 if offsets else torch.int8
            levels = torch.empty(rows, columns * bits // 8, dtype=type_, device="cuda")
            scales = torch.empty(rows, columns // group, dtype=torch.bfloat16 if offsets else torch.float16, device="cuda")
            matrix = Packed(levels, scales, torch.empty_like(scales) if offsets else None)
            new = PackedEmbedding if isinstance(layer, nn.Embedding) else PackedLinear
            setattr(parent, attribute, new(matrix, columns))


def mimi(size: str) -> dict[str, list[Launch]]:
    """What Mimi launches for a frame, in each direction, when it has begun."""
    with fake_cuda():
        with mock.patch.object(nn.Module, "to", lambda module, *_: module):  # it is made there
            codec = build_codec(SIZES[size], torch.device("cuda"))
        sound = torch.zeros(1, 1, FRAME_SIZE, device="cuda")
        codes = torch.zeros(1, SIZES[size].dep_q, dtype=torch.int64, device="cuda")
        codec.encode(sound)
        codec.decode(codes)
        with Launches() as encode:
            codec.encode(sound)
        with Launches() as decode:
            codec.decode(codes)
        return {"encode": encode.all, "decode": decode.all}


def launches(
    size: str, dtype: torch.dtype, form: str | None, kv_cache: str | None, picture: bool
) -> tuple[dict[str, list[Launch]], int]:
    """What each part of a step launches, and the bytes that the step must read."""
    with fake_cuda():
        model = random_model(SIZES[size], "cuda", dtype, None if form in RELEASED else form)
        if form in RELEASED:
            packed(model, *RELEASED[form])
        stream = Stream(model, kv_cache=kv_cache)
        stream.bucket = stream.buckets[-1] if picture else 0
        codes = torch.zeros(1, model.config.user_q, dtype=torch.int64, device="cuda")
        with torch.no_grad(), Launches() as whole:
            stream(codes)
        column = stream.tokens[:, :, 0]
        with torch.no_grad(), Launches() as temporal:
            hidden, _, _ = stream.temporal(column)
        with torch.no_grad(), Launches() as depformer:
            temperature, race = stream.temperature[1], stream.noise
            stream.depformer(
                hidden, column[:, 0], lambda i, logits: sample(logits, temperature, race[:, 1 + i])
            )
        rest = len(whole.all) - len(temporal.all) - len(depformer.all)
        parts = {"temporal": temporal.all, "depformer": depformer.all, "tokens": whole.all[:rest]}
        return {**parts, "whole": whole.all}, bytes_per_step(model, kv_cache)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16")
    parser.add_argument("--names", action="store_true", help="what is launched how often, too")
    args = parser.parse_args()
    print(
        f"{'weights':9}{'window':8}{'picture':9}{'temporal':>9}{'depformer':>10}{'tokens':>8}{'whole':>8}",
        end="",
    )
    print(f"{'GB touched':>12}{'GB to read':>12}")
    for form, kv_cache in FORMS + [(form, None) for form in RELEASED]:
        for picture in (True, False):
            parts, needed = launches(args.size, getattr(torch, args.dtype), form, kv_cache, picture)
            counts = [len(parts[name]) for name in ("temporal", "depformer", "tokens", "whole")]
            touched = sum(launch.bytes for launch in parts["whole"])
            print(f"{form or args.dtype:9}{kv_cache or '-':8}{'yes' if picture else 'no':9}", end="")
            print(
                "{:9}{:10}{:8}{:8}".format(*counts), f"{touched / 1e9:11.2f} {needed / 1e9:11.2f}", flush=True
            )
            if args.names:
                _print_names(parts["whole"])
    for direction, found in mimi(args.size).items():
        print(f"Mimi, {direction}: {len(found)}")
        if args.names:
            _print_names(found)


def _print_names(found: list[Launch]) -> None:
    for name, count in Counter(launch.name for launch in found).most_common():
        print(f"{count:12}  {name}")


if __name__ == "__main__":
    main()
