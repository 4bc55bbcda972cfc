"""From tokens to vectors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from moshivis_ros.model.kernels.form import fused
from moshivis_ros.model.packed import look_up


def embed(tokens: Tensor, tables: Sequence[nn.Module], dtype: torch.dtype) -> Tensor:
    """Sum [B, dim] of a row of each of ``tables``, for ``tokens`` [B, tables]; -1 (no token) adds nothing. ``dtype``: of the
    sum; packed tables are read in float32.

    Any other id outside the table is an error in torch, and makes the whole sum NaN in Triton.
    """
    if fused(tokens, *tables):
        from moshivis_ros.model.kernels import triton_tokens

        return triton_tokens.embed(tokens, tables, dtype)
    absent = tokens == -1
    ids = tokens.masked_fill(absent, 0).unbind(-1)
    rows = [look_up(table, i) for i, table in zip(ids, tables, strict=True)]
    return torch.stack(rows, dim=-2).masked_fill(absent[..., None], 0).sum(-2).to(dtype)


def add_embedded(x: Tensor, ids: Tensor, table: nn.Module) -> Tensor:
    """``x`` [B, dim] and the row of each of ``ids`` [B]."""
    if fused(x, table):
        from moshivis_ros.model.kernels import triton_tokens

        return triton_tokens.embed(ids[:, None], [table], x.dtype, x)
    return x + look_up(table, ids).to(x.dtype)
