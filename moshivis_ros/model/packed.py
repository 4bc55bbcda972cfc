"""Weights in small groups, each with its scale and perhaps an offset: linear layers and embeddings that keep them so.

They hold what a file holds and round nothing again. The blocks of 32 of ggml's q8_0, MLX's groups and our own int8
embeddings and image encoder are all of this kind: weight = level * scale + offset.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCK = 1 << 22  # weights that are unpacked at a time: what is needed beside them stays small


class Packed(NamedTuple):
    """One matrix.

    ``levels`` [rows, columns] are int8 or uint8, or, if there are half as many, uint8 with two levels of 4 bits each, the
    left one in the low half. ``scales`` and ``offsets`` (None: 0) [rows, groups], of any floating-point type, belong to
    as many columns each.
    """

    levels: Tensor
    scales: Tensor
    offsets: Tensor | None

    def rows(self, which: Tensor | slice, columns: int) -> Tensor:
        """These rows as weights, float32 [..., columns]."""
        levels, scales = self.levels[which], self.scales[which]
        if levels.shape[-1] < columns:
            levels = torch.stack((levels & 15, levels >> 4), dim=-1).flatten(-2)
        groups: Tensor = levels.float().unflatten(-1, (scales.shape[-1], -1))
        weights = groups * scales.float()[..., None]
        if self.offsets is not None:
            weights = weights + self.offsets[which].float()[..., None]
        return weights.flatten(-2)


class _Holder(nn.Module):
    levels: Tensor
    scales: Tensor
    offsets: Tensor | None

    def __init__(self, packed: Packed, columns: int) -> None:
        super().__init__()
        self.columns = columns
        for name, tensor in packed._asdict().items():
            self.register_buffer(name, tensor)

    @property
    def packed(self) -> Packed:
        return Packed(self.levels, self.scales, self.offsets)


class PackedLinear(_Holder):
    """Linear layer of a packed matrix, and perhaps a bias [rows]."""

    bias: Tensor | None

    def __init__(self, packed: Packed, columns: int, bias: Tensor | None = None) -> None:
        super().__init__(packed, columns)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:  # [..., columns] -> [..., rows]
        # One vector is multiplied in float32, which costs nothing where the weights have to be read; of the many vectors
        # of a picture the product counts, in the model's type, as with any other weights.
        type_ = torch.float32 if x.numel() <= 16 * self.columns else x.dtype
        step = max(1, BLOCK // self.columns)
        parts = [
            F.linear(x.to(type_), self.packed.rows(slice(first, first + step), self.columns).to(type_))
            for first in range(0, len(self.levels), step)
        ]
        out = torch.cat(parts, dim=-1).to(x.dtype)
        return out if self.bias is None else out + self.bias


class PackedEmbedding(_Holder):
    """Embedding whose table is a packed matrix."""

    def forward(self, ids: Tensor) -> Tensor:  # [...] -> float32 [..., columns]
        return self.packed.rows(ids, self.columns)


def look_up(table: nn.Module, ids: Tensor) -> Tensor:
    """Rows of an embedding, in its own type, or of a packed one, in float32: no id is -1."""
    out: Tensor = F.embedding(ids, table.weight) if isinstance(table, nn.Embedding) else table(ids)
    return out
