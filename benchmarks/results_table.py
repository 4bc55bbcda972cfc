"""The tables of docs/performance.md.

python benchmarks/results_table.py            one line for each docs/results/*.json (`moshivis bench --json`)
python benchmarks/results_table.py computed   what the bytes of a frame allow on other machines: NOT measured
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from quantization import MIMI_BYTES, released

from moshivis_ros.model.cost import bytes_per_step, memory

RESULTS = Path(__file__).parent.parent / "docs" / "results"
# GB/s and GB of memory, from the makers' data sheets
MACHINES = {
    "Jetson Orin NX 16 GB": (102.4, 16),
    "Jetson AGX Orin": (204.8, 64),
    "Jetson Thor": (273, 128),
    "L4": (300, 24),
    "RTX 3090": (936, 24),
    "RTX 4090": (1008, 24),
    "RTX 5090": (1792, 32),
    "H200": (4800, 141),
}
CONTEXT = 1.5  # GB that the device and other programs need
OVERHEAD = 1.4  # a step may take this much longer than its bytes


def measured() -> None:
    print(
        "| date | device | model | type | LM | depformer | step | Mimi in + out | frame p50 / p99 | of floor | vs reference |"
    )
    print("|---|---|---|---|---:|---:|---:|---:|---:|---:|---:|")
    for file in sorted(RESULTS.glob("*.json")):
        result = json.loads(file.read_text())
        stages = {name: stage["p50_ms"] for name, stage in result["stages"].items()}
        kind = result["dtype"] + (f", {result['quantize']}" if result["quantize"] else "")
        kind += f", {result['kv_cache']} window" if result["kv_cache"] else ""
        ratio = f"{result['reference']['ratio_p50']:.2f} x" if "reference" in result else ""
        device = f"{result['device']}, {result['threads']} thread" + (
            f" ({result['note']})" if result["note"] else ""
        )
        columns = (
            result["date"],
            device,
            result["model"],
            kind,
            f"{stages['lm']:.2f}",
            f"{stages['depformer']:.2f}",
            f"{stages['step']:.2f}",
            f"{stages['mimi_encode'] + stages['mimi_decode']:.2f}" if result["mimi"] else "absent",
            f"{stages['frame']:.2f} / {result['stages']['frame']['p99_ms']:.2f}",
            f"{result['ratio_to_floor']:.2f} x",
            ratio,
        )
        print("| " + " | ".join(columns) + " |")


def computed() -> None:
    models = {"bf16": released(None), "int8": released("int8"), "int4 g128": released("int4")}
    bytes_read = {form: bytes_per_step(model) for form, model in models.items()}
    loaded = {form: sum(memory(model, mimi=MIMI_BYTES).values()) for form, model in models.items()}
    heads = "".join(f" {form} ({size / 1e9:.1f} GB) |" for form, size in bytes_read.items())
    print(f"| machine | GB/s |{heads}\n|---|---:|" + "---:|" * len(models))
    for machine, (bandwidth, room) in MACHINES.items():
        cells = []
        for form, size in bytes_read.items():
            floor = size / bandwidth / 1e6
            fits = loaded[form] / 1e9 + CONTEXT < room
            cells.append(f" {floor:.1f} to {OVERHEAD * floor:.1f} |" if fits else " does not fit |")
        print(f"| {machine} | {bandwidth:g} |" + "".join(cells))


if __name__ == "__main__":
    computed() if sys.argv[1:] == ["computed"] else measured()
