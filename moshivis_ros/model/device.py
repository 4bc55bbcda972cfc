"""The device that the network runs on, and in which order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch

from moshivis_ros.errors import ConfigError

CGROUP = Path("/sys/fs/cgroup")  # what a container may take


def find_device(name: str | torch.device) -> torch.device:
    """The device of this name; ``auto`` is the GPU where there is one. Raises ConfigError, which says what there is here."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:  # each backend has its own way to say no
        gpus = [f"cuda:{n} ({torch.cuda.get_device_name(n)})" for n in range(torch.cuda.device_count())]
        here = ", ".join(["cpu", *gpus]) if gpus else f"cpu; torch {torch.__version__} finds no GPU with CUDA"
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"device {str(name)!r} cannot be used ({reason}): give auto, or one of those here: {here}"
        ) from error
    return device


def default_dtype(device: torch.device) -> torch.dtype:
    """What is computed with unless something else is wanted."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def free_memory(device: torch.device) -> int:
    """Bytes that can be had: of a GPU's own memory, or of this computer's, which a Jetson's GPU shares."""
    if device.type == "cuda" and not torch.cuda.get_device_properties(device).is_integrated:
        return torch.cuda.mem_get_info(device)[0]
    found = re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())
    assert found is not None
    free = 1024 * int(found[1])
    try:
        most = int((CGROUP / "memory.max").read_text())
        return min(free, most - int((CGROUP / "memory.current").read_text()) + _file_cache())
    except (OSError, ValueError):  # no container, or "max": one without a limit
        return free


def _file_cache() -> int:
    """Bytes of a container that are only copies of files, and given back when they are wanted."""
    found = re.search(r"^inactive_file (\d+)$", (CGROUP / "memory.stat").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0


STEP, BESIDE = (
    -1,
    0,
)  # priorities of streams: of a frame with all its parts, of a picture that is encoded meanwhile


@contextmanager
def computing(device: torch.device, priority: int) -> Iterator[None]:
    """On a GPU, inside ``with``: this thread computes on the stream of that priority, after what it began before."""
    if device.type != "cuda":
        yield
        return
    stream = stream_of(device, priority)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        yield


@lru_cache
def stream_of(device: torch.device, priority: int) -> torch.cuda.Stream:
    """One for all: memory of a recording belongs to a stream, and only there is it used again; and kernels keep the
    priority of the stream that they were recorded on.
    """
    return torch.cuda.Stream(device, priority=priority)
