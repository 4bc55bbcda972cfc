"""Which form of a function runs, and how its Triton form reads weights."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

INTERPRETED = (
    os.environ.get("TRITON_INTERPRET") == "1"
)  # Triton's own switch: its kernels run on a CPU, slowly
OLDEST = (3, 3)  # Triton whose kernels take tuples of tensors
MOST = 16  # vectors at a time: Triton's product reads the matrix for each of them, torch's once for all


class Rows(NamedTuple):
    """The weight of a linear layer without bias, as Triton's product reads it: row by row, in 16 bytes at a time.

    ``values`` [rows, columns] in floating point; or int8 or uint8 levels; or uint8 [rows, columns / 2], two levels 0..15 in
    each byte: in a group's byte j the low half is of its column j, the high half of its column j + group / 2, and ``zero`` is
    taken off.
    A weight is level * scale + offset, with ``scales`` and ``offsets`` (None: 0) [rows, columns / group] of any
    floating-point type. ``group``: columns that share them, a multiple of 32 or all; 0: there are none.
    """

    values: Tensor
    scales: Tensor | None = None
    offsets: Tensor | None = None
    group: int = 0
    zero: int = 0

    @property
    def columns(self) -> int:
        values, scales, _, group, _ = self
        return values.shape[1] if scales is None else scales.numel() // len(values) * group

    def part(self, rows: slice) -> Rows:
        """Some of the rows."""
        values, scales, offsets = (None if part is None else part[rows] for part in self[:3])
        assert values is not None
        return Rows(values, scales, offsets, self.group, self.zero)


def dense(rows: Rows, dtype: torch.dtype) -> Tensor:
    """The weight [rows, columns] in floating point."""
    values, scales, offsets, group, zero = rows
    if scales is None:
        return values.to(dtype)
    if values.shape[1] < rows.columns:
        halves = values.unflatten(1, (-1, group // 2))
        values = torch.cat((halves & 15, halves >> 4), dim=-1).flatten(1).to(torch.int8) - zero
    weight = values.unflatten(1, (-1, group)).to(dtype) * scales.to(dtype).reshape(len(values), -1, 1)
    if offsets is not None:
        weight += offsets.to(dtype)[..., None]
    return torch.flatten(weight, 1)


def rows_of(linear: nn.Module) -> Rows | None:
    """How to read this layer or embedding, or None: it must be called. One of another form has a property ``rows``."""
    if isinstance(linear, (nn.Linear, nn.Embedding)):
        return Rows(linear.weight)
    rows: Rows | None = getattr(linear, "rows", None)
    return rows


def fused(x: Tensor, *linears: nn.Module) -> bool:
    """True where the Triton form runs: where Triton does, for few vectors whose weights it can read."""
    return len(x) <= MOST and runs_on(x) and all(rows_of(linear) is not None for linear in linears)


def runs_on(x: Tensor) -> bool:
    """Whether Triton runs where ``x`` is, without gradients."""
    return (x.is_cuda or INTERPRETED) and not torch.is_grad_enabled() and triton_runs()


@lru_cache
def triton_runs() -> bool:
    """Whether Triton compiles and starts a kernel here; where it does not, one line says what that costs."""
    try:
        import triton

        if tuple(map(int, triton.__version__.split(".")[:2])) < OLDEST:
            raise ImportError(f"Triton {triton.__version__} is older than {'.'.join(map(str, OLDEST))}")
        if not INTERPRETED:
            from moshivis_ros.model.kernels.triton_tokens import probe

            probe()
    except (ImportError, OSError, RuntimeError, subprocess.CalledProcessError) as error:
        logging.getLogger(__name__).warning("%s", _explain(error))
        return False
    return True


def _explain(error: Exception) -> str:
    if isinstance(error, ImportError):
        remedy = "pip install triton, of the version that belongs to this torch"
    else:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        remedy = f"sudo apt install gcc libpython{version}-dev"
    reason = str(error).strip().splitlines()
    return (
        f"Triton does not run here ({reason[-1] if reason else type(error).__name__}): a step of the released model is "
        "2200 launches in place of 690, which costs 3 to 5 ms a frame on a desktop GPU and 6 to 9 ms on an Orin, and "
        f"quantised weights are read slowly. To have it: {remedy}"
    )
