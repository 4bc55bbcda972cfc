"""A process of a training that dies as one that is killed does."""

from __future__ import annotations

import os
import signal
from typing import Any

from moshivis_ros.training import tune
from moshivis_ros.training.train import Settings


def train(settings: Settings, rank: int, processes: int, port: int, dies: int | None) -> None:
    """One of several; ``dies``: number of the step after which, saved, the first of them is killed."""
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ.update(where, WORLD_SIZE=str(processes), RANK=str(rank), LOCAL_RANK=str(rank))
    real = tune.save

    def save(*args: Any) -> None:
        real(*args)
        if args[3] == dies:
            os.kill(os.getpid(), signal.SIGKILL)

    tune.save = save
    tune.tune(settings)
