"""Everything that docs/performance.md wants to know of one machine, by one command.

    python benchmarks/everything.py --reference CHECKOUT
    python benchmarks/everything.py --size tiny --frames 20 --device cpu --out FOLDER

Verifies the network against the golden data, then runs `moshivis bench` with the window full, a picture, and one that
is renewed every second: plain (in turns with the reference, a checkout of kyutai-labs/moshivis, if given), int8, int8
with an int8 window, int4. Writes a JSON file for each to docs/results, and prints the figures beside what is wanted of a
data-centre GPU. Without moshi there is no Mimi, and the figures say so.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RUNS: dict[str, list[str]] = {
    "plain": [],
    "int8": ["--quantize", "int8"],
    "int8-int8-window": ["--quantize", "int8", "--kv-cache", "int8"],
    "int4": ["--quantize", "int4"],
}


def moshivis(*arguments: str) -> int:
    print("moshivis", *arguments, flush=True)
    return subprocess.call([sys.executable, "-m", "moshivis_ros.cli", *arguments], cwd=ROOT)


def wanted(results: dict[str, dict[str, Any]]) -> list[tuple[str, float, str, float]]:
    """What is wanted, the figure, its comparison and its limit."""
    plain, int8, int4 = (results[name] for name in ("plain", "int8", "int4"))
    frame, refreshed = plain["stages"]["frame"], plain["stages"]["frame_with_refresh"]

    def step(result: dict[str, Any]) -> float:
        return float(result["stages"]["step"]["p50_ms"])

    lines = [
        ("step over its floor", plain["ratio_to_floor"], "<=", 1.4),
        ("whole frame p50, ms", frame["p50_ms"], "<=", 8.0),
        ("frame p99 over p50", frame["p99_ms"] / frame["p50_ms"], "<=", 1.2),
        (
            "slowest frame with a picture every second over the slowest without, ms",
            refreshed["max_ms"] - frame["max_ms"],
            "<=",
            2.0,
        ),
        ("int8 step faster than plain, times", step(plain) / step(int8), ">=", 1.5),
        ("int4 step faster than int8, times", step(int8) / step(int4), ">=", 1.0),
    ]
    if "reference" in plain:
        lines.append(("step faster than the reference, times", plain["reference"]["ratio_p50"], ">=", 5.0))
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", default="full")
    parser.add_argument("--frames", default="200")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--reference", metavar="CHECKOUT")
    parser.add_argument("--note", default="")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    failed = []
    for folder in ("tiny_a", "tiny_b"):
        for dtype in ("float32", "bfloat16"):
            golden = f"tests/golden/{folder}"
            if moshivis("verify", golden, "--device", options.device, "--dtype", dtype):
                failed.append(f"verify {golden} {dtype}")
    results: dict[str, dict[str, Any]] = {}
    for name, more in RUNS.items():
        file = options.out.resolve() / "new.json"
        command = ["bench", "--size", options.size, "--frames", options.frames, "--device", options.device]
        command += ["--note", options.note, "--json", str(file), *more]
        reference = ["--reference", options.reference] if options.reference and name == "plain" else []
        if moshivis(*command, *reference) and (not reference or moshivis(*command)):
            failed.append(f"bench {name}")
            continue
        result = results[name] = json.loads(file.read_text())
        if reference and "reference" not in result:
            failed.append("reference")
        device = re.sub(r"\W+", "-", result["device"]).strip("-").lower()
        file.rename(file.with_name(f"{device}-{options.size}-{name}.json"))
    if {"plain", "int8", "int4"} <= results.keys():
        for what, figure, comparison, limit in wanted(results):
            met = figure <= limit if comparison == "<=" else figure >= limit
            print(f"{'met   ' if met else 'NOT   '} {what}: {figure:.2f} (wanted {comparison} {limit:g})")
    for what in failed:
        print(f"FAILED {what}: the reason is above")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
