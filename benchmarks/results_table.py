"""One line for each docs/results/*.json (`moshivis bench --json`).

python benchmarks/results_table.py
"""

from __future__ import annotations

import json
from pathlib import Path

RESULTS = Path(__file__).parent.parent / "docs" / "results"


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


if __name__ == "__main__":
    measured()
