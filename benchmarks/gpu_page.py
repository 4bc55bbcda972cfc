"""Writes docs/gpu.md: what to expect of a GPU, computed from what is counted.

    python benchmarks/gpu_page.py

Run it when a step reads or launches another number; tests/test_gpu_page.py holds that the page is what this writes.
"""

from __future__ import annotations

from pathlib import Path

import torch

from moshivis_ros.errors import CheckpointError
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.cost import MIMI_LAUNCHES, launches
from moshivis_ros.model.fit import FRAME, QUICK, SLACK, WORKING, Form, Machine, decide, expect, seconds

PAGE = Path(__file__).parent.parent / "docs" / "gpu.md"
BEGIN, END = "<!-- computed by python benchmarks/gpu_page.py -->", "<!-- /computed -->"
RELEASED = ModelConfig.preset("moshika-vis")
MIMI = 317_200_000  # bytes, float32
REACHED = 0.9  # of the bandwidth in the data sheet, by a kernel that only reads
DESKTOP, BOARD = 2.5e-6, 5e-6  # seconds of a kernel in a CUDA graph
TAKEN = {DESKTOP: 1.0, BOARD: 3.0}  # GB that context, display and system take
# Memory (GB) and bandwidth (GB/s) by the makers' data sheets, seconds of a kernel.
CARDS = {
    "Jetson Orin Nano 8 GB (Super)": (8, 102, BOARD),
    "Jetson Orin NX 16 GB": (16, 102.4, BOARD),
    "Jetson AGX Orin 64 GB": (64, 204.8, BOARD),
    "Jetson Thor": (128, 273, BOARD),
    "DGX Spark (GB10)": (128, 273, BOARD),
    "RTX 3060 12 GB": (12, 360, DESKTOP),
    "RTX 4060 8 GB": (8, 272, DESKTOP),
    "RTX 4060 Ti 16 GB": (16, 288, DESKTOP),
    "RTX 4070": (12, 504, DESKTOP),
    "RTX 5070": (12, 672, DESKTOP),
    "RTX 4080": (16, 717, DESKTOP),
    "RTX 5080": (16, 960, DESKTOP),
    "RTX 3090": (24, 936, DESKTOP),
    "RTX 4090": (24, 1008, DESKTOP),
    "RTX 5090": (32, 1792, DESKTOP),
    "L4": (24, 300, DESKTOP),
    "A10": (24, 600, DESKTOP),
    "L40S": (48, 864, DESKTOP),
    "A100 80 GB": (80, 2039, DESKTOP),
    "H100": (80, 3350, DESKTOP),
    "H200": (141, 4800, DESKTOP),
}


def forms(name: str, counted: list[Form]) -> list[Form]:
    """The counted forms, with the time of a frame on this card."""
    _, bandwidth, launch = CARDS[name]
    machine = Machine("cuda", REACHED * bandwidth * 1e9, launch, fused=True)
    return [form._replace(seconds=seconds(machine, RELEASED, form.read, MIMI)) for form in counted]


def table(counted: list[Form]) -> str:
    plain = [form for form in counted if form.kv_cache is None]
    heads = "".join(f" {form.name} |" for form in plain)
    lines = [f"| card | GB | GB/s |{heads} `auto` takes |", "|---|---:|---:|" + "---:|" * len(plain) + "---|"]
    for name, (room, bandwidth, launch) in CARDS.items():
        timed, free = forms(name, counted), int((room - TAKEN[launch]) * 1e9)
        cells = [
            f" {1000 * form.seconds:.0f}{' (late)' if form.seconds > FRAME else ''} |"
            if form.size + WORKING <= free
            else " - |"
            for form in timed
            if form.kv_cache is None
        ]
        try:
            best, _ = decide(timed, free, "cuda")
            takes = best.name + (": too slow" if best.seconds > FRAME else "")
        except CheckpointError:
            takes = "too small"
        lines.append(f"| {name} | {room} | {bandwidth:g} |{''.join(cells)} {takes} |")
    return "\n".join(lines)


def computed() -> str:
    """What stands between the two markers of the page."""
    counted = expect(Machine("cuda", 1e12, DESKTOP, fused=True), RELEASED, torch.bfloat16, MIMI)
    sizes = "\n".join(
        f"| {form.name} | {form.size / 1e9:.1f} | {(form.size + WORKING) / 1e9:.1f} | {form.read / 1e9:.1f} |"
        for form in counted
    )
    count = launches(RELEASED)
    return f"""\
**Computed, not measured**: milliseconds of a whole frame (of its {1000 * FRAME:.0f}), window full, with a picture of 1024
tokens; -: does not fit.

{table(counted)}

Counted, tensor by tensor and launch by launch:

| form | GB to keep | GB that must be free | GB that a step reads |
|---|---:|---:|---:|
{sizes}

{count} launches for the step and {MIMI_LAUNCHES} for Mimi, whatever the form.

Assumed: {100 * REACHED:.0f} % of the data sheet's bandwidth is reached by reading alone, and a step takes {SLACK["cuda"]} times
what its bytes then allow; a kernel in a CUDA graph costs {DESKTOP * 1e6:.1f} us on a card and {BOARD * 1e6:.0f} us on a board; context,
display and system take {TAKEN[DESKTOP]:g} GB of a card and {TAKEN[BOARD]:g} GB of a board; Triton runs. `auto` measures the first and the
third where it runs, and takes the best form that fits and is expected within {1000 * QUICK:.0f} ms.
"""


def page(text: str) -> str:
    """The page with what is computed now between its markers."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{computed()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
