"""Which form of a model to load: the best that fits the free memory and is quick enough, and why, in one line.

    choice = choose(path, torch.device("cuda"), torch.bfloat16)
    choice.quantize, choice.kv_cache      # for load_model
    choice.reason                         # "int8, because 11.4 GB are free and ..."

A frame is expected to take its bytes over the bandwidth, measured here, its launches (see cost.py) and Mimi.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from moshivis_ros.errors import CheckpointError
from moshivis_ros.model import released
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.cost import (
    MIMI_LAUNCHES,
    WORKING,
    bytes_per_step,
    launch_seconds,
    launches,
    memory,
    read_bandwidth,
)
from moshivis_ros.model.device import free_memory
from moshivis_ros.model.kernels.form import triton_runs
from moshivis_ros.model.lm import MoshiVis, window_bytes
from moshivis_ros.model.quantize import Quantizer
from moshivis_ros.model.weights import unfilled

# The best first. What an int8 window adds to the error of the logits is a tenth of what int8 weights do, and int4 weights
# do ten times more than those (docs/performance.md): every window of better weights comes before worse weights.
WEIGHTS = (None, "int8", "int4")
WINDOWS = (None, "int8")
FRAME = 0.08  # seconds
QUICK = 0.064  # of them: the rest is for frames that take longer than most, and for pictures
SMALL = 100_000_000  # bytes of a file whose weights any processor reads in time: there is nothing to decide
MEASURED_ROWS = 1 << 16  # that the bandwidth is measured with, of 4 kB: more than any cache holds
SLACK = {
    "cuda": 1.2,
    "cpu": 1.6,
}  # by which a step is slower than its bytes allow: wanted of a GPU, seen on two CPUs
MIMI_SECONDS = 1.7e-9  # a frame and parameter on a CPU (135 ms of the released one's 79 million)


class Choice(NamedTuple):
    """``quantize`` and ``kv_cache`` as load_model takes them; ``reason`` is empty where nothing was to be decided.

    ``live``: a frame is not expected to take longer than it lasts.
    """

    quantize: str | None
    kv_cache: str | None
    reason: str = ""
    live: bool = True


class Machine(NamedTuple):
    """How quick a device is. ``launch``: seconds of a kernel, 0 on a CPU; ``fused``: Triton runs."""

    kind: str  # cuda, cpu
    bandwidth: float  # bytes per second
    launch: float
    fused: bool


class Form(NamedTuple):
    """One way to hold the model: its name, bytes to keep, bytes to read for a step, seconds that a frame is expected to
    take.
    """

    name: str
    quantize: str | None
    kv_cache: str | None
    size: int
    read: int
    seconds: float


def choose(
    path: Path, device: torch.device, dtype: torch.dtype, quantize: str = "auto", kv_cache: str = "auto"
) -> Choice:
    """For the checkpoint folder ``path``, or the file of one. ``quantize`` and ``kv_cache`` as in Options.

    Raises CheckpointError when not even the smallest form fits the free memory.
    """
    weights, window = (None if wanted in ("auto", "none") else wanted for wanted in (quantize, kv_cache))
    given = Choice(weights, window)
    if "auto" not in (quantize, kv_cache):
        return given
    folder = path if path.is_dir() else path.parent
    config = ModelConfig.load(folder)
    file = folder / config.model if path.is_dir() else path
    if file.is_file() and file.stat().st_size <= SMALL:
        return given
    as_it_is = released.is_released(file)
    if config.quantize or as_it_is:
        quantize = "none"
    machine = measure(device)
    mimi = folder / config.mimi_codec
    mimi_bytes = mimi.stat().st_size if mimi.is_file() else 0
    every = WEIGHTS if quantize == "auto" else (weights,)
    windows = WINDOWS if kv_cache == "auto" else (window,)
    forms = expect(machine, config, dtype, mimi_bytes, every, windows, file if as_it_is else None)
    free = free_memory(device)
    best, reason = decide(forms, free, device)
    return Choice(best.quantize, best.kv_cache, reason, best.seconds < FRAME)


def decide(forms: list[Form], free: int, device: torch.device | str) -> tuple[Form, str]:
    """Of these, the best first, the first that fits and is quick enough, else the quickest that fits; and why."""
    fitting = [form for form in forms if form.size + WORKING <= free]
    smallest = min(forms, key=lambda form: form.size)
    if not fitting:
        raise CheckpointError(
            f"even as {smallest.name} the model needs {(smallest.size + WORKING) / 1e9:.1f} GB on {device}, but "
            f"{free / 1e9:.1f} are free: stop other programs that use them, or take a machine with more memory"
        )
    quick = [form for form in fitting if form.seconds <= QUICK]
    best = quick[0] if quick else min(fitting, key=lambda form: form.seconds)
    return best, _reason(best, forms, fitting, free)


def _reason(best: Form, forms: list[Form], fitting: list[Form], free: int) -> str:
    better = forms[: forms.index(best)]
    small = f"{free / 1e9:.1f} GB are free"
    if not better:
        why = f"{best.name}: {small}, it takes {(best.size + WORKING) / 1e9:.1f}"
    elif better[-1] in fitting:
        why = f"{best.name}, because {better[-1].name} would take {_time(better[-1])} a frame"
    else:
        why = f"{best.name}, because {small} and {better[-1].name} takes {(better[-1].size + WORKING) / 1e9:.1f}"
    why = f"{why}; expect {_time(best)} a frame"
    if best.seconds > FRAME:
        return f"{why}, which is too slow to talk live (80 ms): for recordings, or take a faster GPU"
    if best.seconds > QUICK:
        return f"{why} of 80: some will be late"
    worse = [
        form for form in forms[forms.index(best) :] if form.quantize != best.quantize and form in fitting
    ]
    quicker = [form for form in worse if form.seconds < best.seconds]
    return f"{why}; {quicker[0].name} would take {_time(quicker[0])}" if quicker else why


def _time(form: Form) -> str:
    return f"{1000 * form.seconds:.0f} ms" if form.seconds < 1 else f"{form.seconds:.1f} s"


def measure(device: torch.device) -> Machine:
    """How quick this device is: reads a quarter of a GB a few times, which takes half a second on a CPU."""
    bandwidth = read_bandwidth(device, MEASURED_ROWS)
    if device.type != "cuda":
        return Machine("cpu", bandwidth, 0.0, False)
    torch.cuda.empty_cache()  # what was read
    with torch.cuda.device(device):
        return Machine("cuda", bandwidth, launch_seconds(device), triton_runs())


def expect(
    machine: Machine,
    config: ModelConfig,
    dtype: torch.dtype,
    mimi: int,
    weights: Sequence[str | None] = WEIGHTS,
    windows: Sequence[str | None] = WINDOWS,
    file: Path | None = None,
) -> list[Form]:
    """What a model costs in each of these forms. ``mimi``: bytes of Mimi; ``file``: weights that are loaded as they are.

    The window is counted as full, the picture as one of the checkpoint's size.
    """
    forms = []
    for quantize in weights:
        with unfilled():
            model = MoshiVis(config).to(dtype)
        window = window_bytes(config, dtype, None)
        plain = bytes_per_step(model) - window
        held = quantize or config.quantize
        if held is not None:
            Quantizer(model, held).expect()
        for kv_cache in windows:
            parts = memory(model, kv_cache, mimi=mimi)
            size, read = sum(parts.values()), bytes_per_step(model, kv_cache)
            if file is not None:  # all of it is counted as read, the image encoder too
                counted = size - parts["attention window"] - parts["picture"] - mimi
                size, read = (number + file.stat().st_size - counted for number in (size, read))
            # What torch's own functions unpack they write and read again in the numbers that are computed with.
            if kv_cache and not machine.fused:
                read += 2 * window
            if (held or file) and machine.kind == "cuda" and not machine.fused:
                read += 2 * plain
            name = file.name if file is not None else held or str(dtype).removeprefix("torch.")
            name += f" with an {kv_cache} window" if kv_cache else ""
            forms.append(Form(name, quantize, kv_cache, size, read, seconds(machine, config, read, mimi)))
    return forms


def seconds(machine: Machine, config: ModelConfig, read: int, mimi: int) -> float:
    """That a frame is expected to take of which the step reads so many bytes."""
    step = SLACK[machine.kind] * read / machine.bandwidth
    if machine.kind == "cpu":
        return step + MIMI_SECONDS * mimi / 4
    count = launches(config, machine.fused) + MIMI_LAUNCHES
    return step + mimi / machine.bandwidth + count * machine.launch
