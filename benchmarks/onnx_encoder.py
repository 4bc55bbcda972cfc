"""The exported image encoder at the width of the released model: memory of the export, and how far it is from torch.

    python benchmarks/onnx_encoder.py
    python benchmarks/onnx_encoder.py --image-size 224 --folder BIG_DISK

Makes a checkpoint of random weights (everything that a picture goes through is of the released size, one layer of the
language model; 1.5 GB in bf16), exports it as a process of its own, and compares ONNX Runtime on the CPU with torch in the
type that the file serves, and both with torch in float32.
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from moshivis_ros.bench.random_model import random_model
from moshivis_ros.bench.sizes import SIZES
from moshivis_ros.model.checkpoint import load_model, save_model
from moshivis_ros.model.onnx_encoder import OnnxImageEncoder, path_in

CONFIG = dataclasses.replace(
    SIZES["full"],
    num_layers=1,
    depformer_num_layers=1,
    text_card=64,
    audio_card=64,
    depformer_dim=64,
    depformer_num_heads=1,
)
# The most memory that a process had, in kB, is in a file of the system.
EXPORT = """
import re, sys
from moshivis_ros import cli
assert cli.main(sys.argv[1:]) == 0
print(re.search("VmHWM:.*", open("/proc/self/status").read())[0])
"""


def relative(found: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    a, b = (torch.cat([x.float().flatten() for x in each]) for each in (found, expected))
    return float((a - b).norm() / b.norm())


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image-size", type=int, default=448)
    parser.add_argument(
        "--folder", type=Path, help="where 6 GB can be written (default: with other temporary files)"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder)
        save_model(random_model(CONFIG, "cpu", torch.bfloat16), path)
        pixels = 2 * torch.rand(1, 3, args.image_size, args.image_size) - 1
        exact = list(load_model(path, "cpu", torch.float32).image_kv(pixels))
        for name in ("float32", "bfloat16", "float16"):
            dtype = getattr(torch, name)
            command = ["export-image-encoder", folder, "--image-size", str(args.image_size), "--dtype", name]
            done = subprocess.run(
                [sys.executable, "-c", EXPORT, *command], check=True, stdout=subprocess.PIPE, text=True
            )
            peak = int(done.stdout.split()[-2]) / 1e6
            model = load_model(path, "cpu", dtype)
            encoder = OnnxImageEncoder(path, model, args.image_size)
            errors = relative(list(encoder(pixels)), exact), relative(list(model.image_kv(pixels)), exact)
            print(
                f"{name}: {path_in(path, args.image_size, dtype).name}, exported with {peak:.2f} GB at most; ",
                end="",
            )
            print(
                f"ONNX from torch {encoder.error:.1e}; from float32: ONNX {errors[0]:.1e}, torch {errors[1]:.1e}",
                flush=True,
            )
            del encoder, model


if __name__ == "__main__":
    main()
