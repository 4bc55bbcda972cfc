"""From tokens to vectors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moshivis_ros.model.kernels.form import fused


def embed(tokens: Tensor, tables: Sequence[nn.Embedding]) -> Tensor:
    """Sum [B, dim] of a row of each of ``tables``, for ``tokens`` [B, tables]; -1 (no token) adds nothing.

    Any other id outside the table is an error in torch, and makes the whole sum NaN in Triton.
    """
    if fused(tables[0].weight):
        from moshivis_ros.model.kernels import triton_tokens

        return triton_tokens.embed(tokens, tables)
    absent = tokens == -1
    ids = tokens.masked_fill(absent, 0).unbind(-1)
    rows = [F.embedding(i, table.weight) for i, table in zip(ids, tables, strict=True)]
    return torch.stack(rows, dim=-2).masked_fill(absent[..., None], 0).sum(-2)


def add_embedded(x: Tensor, ids: Tensor, table: nn.Embedding) -> Tensor:
    """``x`` [B, dim] and the row of each of ``ids`` [B]."""
    if fused(x):
        from moshivis_ros.model.kernels import triton_tokens

        return triton_tokens.embed(ids[:, None], [table], x)
    return x + F.embedding(ids, table.weight)
