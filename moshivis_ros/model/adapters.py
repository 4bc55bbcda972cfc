"""What is trained of a MoshiVis, apart from the rest: 206 million numbers, 0.4 GB, put into the checkpoint that it belongs to
while that is loaded.

The file holds tensors under their released names, which replace those of the checkpoint; and pairs NAME.lora_a [rank,
columns], NAME.lora_b [rows, rank], whose product (times the scale in the metadata) is added to the checkpoint's NAME.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from moshivis_ros.errors import CheckpointError
from moshivis_ros.model.weights import MAX_LISTED, open_file

FILE = "adapters.safetensors"
_A, _B = ".lora_a", ".lora_b"


def is_adapter(name: str) -> bool:
    """Is this a parameter that MoshiVis adds to Moshi and to its image encoder?"""
    return re.search(r"\.(cross_attention|norm_cross)\.|^image_prefix\.(proj_xa|norm_xa)\.", name) is not None


class Adapters:
    """``tensors`` as in the file; ``scale`` of the products."""

    def __init__(self, tensors: Mapping[str, Tensor], scale: float = 1.0, path: Path = Path(FILE)) -> None:
        self.tensors, self.scale, self.path = dict(tensors), scale, path

    @classmethod
    def load(cls, folder: Path | str) -> Adapters:
        """Of a folder that `moshivis train` wrote, or the file itself. Raises CheckpointError."""
        path = Path(folder).expanduser()
        path = path / FILE if path.is_dir() else path
        if not path.is_file():
            raise CheckpointError(f"there are no adapters at {path}: give the folder of a finished training")
        with open_file(path) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            scale = (file.metadata() or {}).get("scale", "1")
        bad = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
        if bad:
            raise CheckpointError(f"{path}: {bad[0]} holds numbers that are NaN or infinite; train again")
        return cls(tensors, float(scale), path)

    def save(self, folder: Path) -> None:
        """Write ``folder``/adapters.safetensors, all at once."""
        partial = folder / f"{FILE}.partial"
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()}
        save_file(tensors, partial, metadata={"scale": str(self.scale)})
        os.replace(partial, folder / FILE)

    def check(self, layout: Mapping[str, Tensor]) -> None:
        """Raise CheckpointError unless they belong to a network of this layout."""
        problems = []
        for name, tensor in self.tensors.items():
            base = name.removesuffix(_A).removesuffix(_B)
            found, expected = list(tensor.shape), list(layout[base].shape) if base in layout else None
            if expected is not None and base != name:  # all but the rank
                kept = 1 if name.endswith(_A) else 0
                found, expected = [found[kept]], [expected[kept]]
                if base + _A not in self.tensors or base + _B not in self.tensors:
                    problems.append(f"{name} lacks the other one of its pair")
            if expected is None:
                problems.append(f"{name} is unknown to the checkpoint")
            elif found != expected:
                problems.append(f"{name} has the size {found}, the checkpoint {expected}")
        if problems:
            listed = "".join(f"\n  {problem}" for problem in problems[:MAX_LISTED])
            raise CheckpointError(
                f"{self.path} belongs to another checkpoint than this one ({len(problems)} tensors):{listed}"
            )

    def put(self, name: str, tensor: Tensor) -> Tensor:
        """The checkpoint's tensor ``name`` as it is with them, changed in place."""
        if name in self.tensors:
            tensor.copy_(self.tensors[name])
        if name + _A in self.tensors:
            a, b = (self.tensors[name + part].to(tensor.device, torch.float32) for part in (_A, _B))
            tensor.copy_(tensor.float() + self.scale * (b @ a))
        return tensor
