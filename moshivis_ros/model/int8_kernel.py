"""One vector times a matrix of 8-bit weights, on a GPU: the weights are read once, at the speed of the memory."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS = 4  # of a program
COLUMNS = 1024  # that it reads of each row at a time


def multiply(x: Tensor, values: Tensor, scales: Tensor) -> Tensor:
    """``x`` [B, columns] times ``values`` int8 [rows, columns] times ``scales`` [rows]: [B, rows], in x's type.

    B is meant to be small: each row of ``x`` reads all weights.
    """
    x = x.contiguous()
    batch, columns = x.shape
    rows = values.shape[0]
    out = torch.empty(batch, rows, dtype=x.dtype, device=x.device)
    _multiply[(triton.cdiv(rows, ROWS), batch)](x, values, scales, out, rows, columns, ROWS, COLUMNS)
    return out


@triton.jit  # type: ignore[untyped-decorator]
def _multiply(x, values, scales, out, rows, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    batch = tl.program_id(1)
    there = row < rows
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in range(0, columns, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        inside = column < columns
        factor = tl.load(x + batch * columns + column, inside, 0.0).to(tl.float32)
        weight = tl.load(values + row[:, None] * columns + column, there[:, None] & inside, 0)
        total += weight.to(tl.float32) * factor
    sums = tl.sum(total, 1) * tl.load(scales + row, there, 0.0).to(tl.float32)
    tl.store(out + batch * rows + row, sums.to(out.dtype.element_ty), there)
