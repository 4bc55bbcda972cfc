"""Where a run can be watched beside its own log: TensorBoard where it is installed, Weights & Biases where a project is named."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moshivis_ros.errors import MissingDependencyError


class Boards:
    """A context manager: nothing is written or told before. project: of Weights & Biases; none if empty. settings: what is told
    there about the run, which goes on there as well if it is started again in the same ``out``.

    Raises MissingDependencyError where a project is named and wandb is not installed.
    """

    def __init__(self, out: Path, project: str, settings: Mapping[str, Any]) -> None:
        self._out, self._project, self._settings = out, project, settings
        self._tensorboard: Any = None
        self._run: Any = None
        if project:
            try:
                import wandb
            except ImportError as error:
                raise MissingDependencyError(
                    f"the run is to be logged to the project {project}: pip install wandb"
                ) from error
            self._wandb = wandb

    def __enter__(self) -> Boards:
        out = self._out
        if importlib.util.find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self._tensorboard = SummaryWriter(str(out / "tensorboard"))
        if self._project:
            number = hashlib.sha1(str(out.resolve()).encode()).hexdigest()[:12]
            about = {"project": self._project, "name": out.name, "config": dict(self._settings)}
            self._run = self._wandb.init(**about, id=number, resume="allow", dir=str(out))
        return self

    def show(self, values: Mapping[str, float], step: int) -> None:
        if self._tensorboard is not None:
            for name, value in values.items():
                self._tensorboard.add_scalar(name, value, step)
        if self._run is not None:
            self._run.log(dict(values), step=step)

    def __exit__(self, *error: object) -> None:
        if self._tensorboard is not None:
            self._tensorboard.close()
        if self._run is not None:
            self._run.finish()
