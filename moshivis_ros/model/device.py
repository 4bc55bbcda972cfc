"""The device that the network runs on, and in which order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch

from moshivis_ros.errors import ConfigError


def find_device(name: str | torch.device) -> torch.device:
    """The device of this name; ``auto`` is the GPU where there is one. Raises ConfigError, which says what there is here."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (
        RuntimeError,
        AssertionError,
        NotImplementedError,
    ) as error:  # each backend has its own way to say no
        gpus = [f"cuda:{n} ({torch.cuda.get_device_name(n)})" for n in range(torch.cuda.device_count())]
        here = ", ".join(["cpu", *gpus]) if gpus else f"cpu; torch {torch.__version__} finds no GPU with CUDA"
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"device {str(name)!r} cannot be used ({reason}): give auto, or one of those here: {here}"
        ) from error
    return device


STEP, BESIDE = -1, 0  # priorities of streams: of a frame with all its parts, of a picture that is encoded meanwhile


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
