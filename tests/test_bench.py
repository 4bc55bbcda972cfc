"""`moshivis bench`: the figures that others read are there and fit together."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from moshivis_ros import cli
from moshivis_ros.bench.sizes import SIZES
from moshivis_ros.model.cost import bytes_per_step, memory
from moshivis_ros.model.lm import MoshiVis
from moshivis_ros.model.quantize import Quantizer, quantize

ROOT = Path(__file__).parent.parent
STAGES = {"mimi_encode", "lm", "depformer", "step", "mimi_decode", "frame", "frame_with_refresh"}


def test_the_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    assert cli.main(["bench", "--size", "tiny", "--frames", "4", "--device", "cpu", "--json", str(file)]) == 0
    result = json.loads(file.read_text())
    assert set(result["stages"]) == STAGES
    for stage in result["stages"].values():
        assert 0 < stage["p50_ms"] <= stage["p95_ms"] <= stage["p99_ms"] <= stage["max_ms"]
    assert result["floor_ms"] == pytest.approx(result["bytes_read"] / result["bandwidth_gb_s"] / 1e6)
    assert result["peak_memory_mb"] > 10 and result["late_frames"] in range(9)
    assert result["memory_mb"]["Mimi"] > 0 and result["mimi"]
    out = capsys.readouterr().out
    assert "mimi_encode" in out and "floor" in out and result["device"] in out
    assert f"attention window {result['memory_mb']['attention window']:.1f}" in out


def test_without_mimi(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "moshi.models.loaders", None)
    file = tmp_path / "figures.json"
    arguments = [
        "--size",
        "tiny",
        "--frames",
        "3",
        "--device",
        "cpu",
        "--quantize",
        "int8",
        "--kv-cache",
        "int8",
    ]
    assert cli.main(["bench", *arguments, "--json", str(file)]) == 0
    result = json.loads(file.read_text())
    assert set(result["stages"]) == STAGES - {"mimi_encode", "mimi_decode"} and not result["mimi"]
    out = capsys.readouterr().out
    assert "Mimi is absent" in out and "int8 weights, int8 window" in out


def test_the_table_has_a_line_for_every_file() -> None:
    """On the files that are there: `moshivis bench --json` has written them."""
    files = sorted((ROOT / "docs/results").glob("*.json"))
    command = [sys.executable, ROOT / "benchmarks/results_table.py"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(files) >= 2 and len(lines) == 2 + len(files)
    assert len({line.count("|") for line in lines}) == 1
    for file, line in zip(files, lines[2:], strict=True):
        result = json.loads(file.read_text())
        frame = result["stages"]["frame"]
        assert result["device"] in line and f"{frame['p50_ms']:.2f} / {frame['p99_ms']:.2f}" in line


def test_everything_goes_on_without_the_reference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = runpy.run_path(str(ROOT / "benchmarks/everything.py"))
    figures = json.loads((ROOT / "docs/results/xeon-builtin-float32.json").read_text())
    del figures["reference"]
    runs = []

    def moshivis(*arguments: str) -> int:
        runs.append(arguments)
        if "--json" in arguments:
            Path(arguments[arguments.index("--json") + 1]).write_text(json.dumps(figures))
        return 2 if "--reference" in arguments else 0

    monkeypatch.setitem(everything["main"].__globals__, "moshivis", moshivis)
    monkeypatch.setattr(sys, "argv", ["everything.py", "--reference", "nowhere", "--out", str(tmp_path)])
    assert everything["main"]() == 1
    assert [run[0] for run in runs] == 4 * ["verify"] + 5 * ["bench"]
    out = capsys.readouterr().out
    assert "FAILED reference" in out and "FAILED bench" not in out
    assert "met    int4 step faster than int8, times: 1.00 (wanted >= 1)" in out
    assert "NOT    whole frame p50" in out and "times: 1.00 (wanted >= 1.5)" in out
    names = ("int4", "int8", "int8-int8-window", "plain")
    expected = {f"intel-r-xeon-r-processor-full-{name}.json" for name in names}
    assert {file.name for file in tmp_path.iterdir()} == expected


def test_memory_of_the_released_model() -> None:
    """Tensor by tensor: what fits a 12 GB and an 8 GB card."""
    with torch.device("meta"):
        models = [MoshiVis(SIZES["full"]).bfloat16() for _ in range(2)]
    for model, form, limits in zip(models, ("int8", "int4"), ((10.7, 9.9), (7.2, 6.4)), strict=True):
        Quantizer(model, form).expect()
        for kv_cache, limit in zip((None, "int8"), limits, strict=True):
            assert limit - 1 < sum(memory(model, kv_cache, mimi=317_200_000).values()) / 1e9 < limit


def test_bytes_of_the_released_model() -> None:
    """Against the sum over the released layout: 15.1 GB of weights, 1.57 GB of window, 17 MB of picture; 19.3 GB
    with what every layer reads again."""
    with torch.device("meta"):
        model = MoshiVis(SIZES["full"]).bfloat16()
    weights = 2 * (6_711_279_616 + 131_072_000 + 33_554_432 + 666_906_624 + 32 * 4096 + 4096)
    norms_of_layers = 2 * 32 * 4096 * 1  # norm_cross is not in the first figure
    expected = weights + 2 * 32 * 3000 * 4096 * 2 + 2 * 1024 * 4096 * 2
    expected += 31 * (2 * 33_554_432 + 2 * 1024 * 4096 * 2)  # shared by the layers, and read by each
    assert bytes_per_step(model) == pytest.approx(expected, abs=2 * norms_of_layers)


def test_smaller_weights_are_fewer_bytes() -> None:
    model = MoshiVis(SIZES["tiny"]).requires_grad_(False)
    before = bytes_per_step(model)
    assert bytes_per_step(quantize(model, "int8")) < before


def test_a_checkout_without_the_reference_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", "--size", "tiny", "--reference", str(tmp_path)]) == 2
    assert "holds no kyuteye_pt" in capsys.readouterr().err
