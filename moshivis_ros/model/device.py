"""The device that the network runs on."""

from __future__ import annotations

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
