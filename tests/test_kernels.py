"""The fused functions: Triton's form gives what torch's gives, a step launches few kernels, and they compile."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from moshivis_ros.model import cost
from moshivis_ros.model.kernels import form

ROOT = Path(__file__).parent.parent


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


@pytest.mark.parametrize("widths", ["odd", "real"])
def test_triton_as_torch(widths: str) -> None:
    """By Triton's interpreter, on a CPU: see interpreted.py."""
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, ROOT / "tests/interpreted.py", widths], env=environment, check=True, cwd=ROOT
    )


@pytest.mark.parametrize(
    "weights, window", [(None, None), ("int8", None), ("int8", "int8"), ("int4", "int8")]
)
def test_a_step_is_few_launches(benchmarks: None, weights: str | None, window: str | None) -> None:
    """Of the released model, on a GPU of shapes alone, where bringing a value to the host fails, too."""
    import torch
    from launches import launches

    from moshivis_ros.bench.sizes import SIZES

    for picture, most in ((True, 700), (False, 560)):
        parts, _ = launches("full", torch.bfloat16, weights, window, picture)
        assert 400 < len(parts["whole"]) <= most
        if picture:  # what `quantize: auto` and docs/gpu.md compute with
            assert abs(cost.launches(SIZES["full"]) - len(parts["whole"])) <= 2


def test_the_released_forms_are_as_few(benchmarks: None) -> None:
    import torch
    from launches import launches

    parts, _ = launches("full", torch.bfloat16, "mlx-q4", None, True)
    assert 400 < len(parts["whole"]) <= 700


def test_mimi_can_be_recorded_whole(benchmarks: None) -> None:
    """No value is brought to the host, and nothing is copied from there: each direction is one graph."""
    from launches import mimi

    found = mimi("full")
    assert len(found["encode"]) < 700 and len(found["decode"]) < 700
    assert abs(cost.MIMI_LAUNCHES - len(found["encode"]) - len(found["decode"])) <= 15


@pytest.mark.parametrize("architecture", [80, 86, 87, 89, 90, 100, 110, 120])
def test_kernels_compile_without_spills(benchmarks: None, architecture: int) -> None:
    """Those of int4 and its int8 window, all of them for two architectures, the two that take most of the time for the
    others; weights and window are read 128 bits at a time, and in their loops no thread waits for others.
    """
    from kernels import compiled, kernels

    found = kernels("int4", "int8")
    if architecture not in (87, 120):
        largest = {launch.name: launch for launch in sorted(found.values(), key=lambda launch: launch.bytes)}
        found = {name: largest[name] for name in ("_product", "_window")}
    else:
        _has_all(found)
    for launch in found.values():
        made = compiled(launch, architecture)
        assert made.spills == 0, launch.name
        assert made.shared <= 48 * 1024, launch.name  # what every card gives a block
        if launch.name in ("_product", "_window", "_image"):
            assert made.widest == 128, launch.name
            assert made.barriers == 0, launch.name


@pytest.mark.parametrize("form", ["q8_0", "mlx-q8"])
def test_the_widest_rows_in_groups_take_no_more_registers_than_there_are(benchmarks: None, form: str) -> None:
    from kernels import compiled, kernels

    found = [launch for launch in kernels(form, None).values() if launch.name == "_product"]
    widest = max(found, key=lambda launch: launch.arguments["COLUMNS"])
    assert widest.arguments["COLUMNS"] == 11264
    assert [compiled(widest, architecture).spills for architecture in (86, 90, 100)] == [0, 0, 0]


def test_rows_of_8_bits_take_no_more_registers_than_there_are(benchmarks: None) -> None:
    """Those without groups, on the architecture whose assembler needs most."""
    from kernels import compiled, kernels

    found = [launch for launch in kernels("int8", "int8").values() if launch.name == "_product"]
    whole = [launch for launch in found if launch.arguments["BYTES"] == 4096]
    assert len(whole) >= 4
    assert [compiled(launch, 110).spills for launch in whole] == [0] * len(whole)


def _has_all(found: dict[str, Any]) -> None:
    names = {launch.name for launch in found.values()}
    assert {"_product", "_window", "_image", "_combine", "_codebooks", "_embed", "_sample"} <= names


@pytest.mark.parametrize("weights, window, most", [(None, None, 1.8), ("int4", "int8", 14)])
def test_a_renewal_reads_every_weight_once(benchmarks: None, weights: str | None, window: str | None, most: float) -> None:
    """A layer of the released widths and 10 s of frames, on a GPU of shapes alone: memory that is touched beside what the
    weights take, launches, and the kernel that unpacks them.
    """
    import dataclasses

    import torch
    from fake_cuda import Launches, fake_cuda
    from kernels import compiled

    from moshivis_ros.bench.random_model import random_model
    from moshivis_ros.bench.sizes import SIZES
    from moshivis_ros.model.stream import Stream

    found, stored = [], 0
    for layers in (1, 2):
        config = dataclasses.replace(SIZES["full"], num_layers=layers, depformer_num_layers=1)
        with fake_cuda(), torch.no_grad():
            model = random_model(config, "cuda", torch.bfloat16, weights)
            layer = model.llm.transformer.layers[-1]
            stored = sum(t.numel() * t.element_size() for t in (*layer.parameters(), *layer.buffers()))
            stream = Stream(model, kv_cache=window, keep=125)
            stream.bucket, stream.steps = stream.buckets[-1], 3000
            with Launches() as launched:
                stream.renew()
        found.append(launched.all)
    one, two = ([launch.bytes for launch in each] for each in found)
    assert len(two) - len(one) < 80
    assert stored < sum(two) - sum(one) < most * stored
    assert max(two) < 3e8, "no room for a whole unpacked weight is needed"
    kernels = {launch.name: launch for launch in found[0] if launch.kernel is not None}
    assert set(kernels) == ({"_unpack"} if weights else set())
    for launch in kernels.values():
        assert compiled(launch, 87).spills == 0


def test_without_triton_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    form.triton_runs.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert not form.triton_runs() and not form.triton_runs()
    form.triton_runs.cache_clear()
    (line,) = caplog.messages
    assert "2200 launches" in line and "pip install triton" in line


def test_without_a_compiler_the_line_names_the_packages(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By Triton's own building of its first module: without a compiler, and without Python.h."""
    build = pytest.importorskip("triton.runtime.build")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    for compiler in ("", "false"):
        monkeypatch.setenv("CC", compiler)
        monkeypatch.setenv("PATH", str(tmp_path) if not compiler else os.environ["PATH"])
        with pytest.raises((RuntimeError, OSError, subprocess.CalledProcessError)) as raised:
            build._build("probe", str(tmp_path / "probe.c"), str(tmp_path), [], [], [], [])
        line = form._explain(raised.value)
        assert "sudo apt install gcc libpython3." in line and "\n" not in line


def test_a_torch_that_is_too_old_is_refused() -> None:
    program = "import torch; torch.__version__ = '2.4.1+cu124'; import moshivis_ros.model"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert (
        done.returncode
        and "torch 2.4.1+cu124 is too old: `pip install --upgrade 'torch>=2.5'`" in done.stderr
    )
