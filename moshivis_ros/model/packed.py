"""Weights in small groups, each with its scale and perhaps an offset: linear layers and embeddings that keep them so.

They hold what a file holds and round nothing again. The blocks of 32 of ggml's q8_0, MLX's groups and our own int8
embeddings and image encoder are all of this kind: weight = level * scale + offset.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moshivis_ros.model.kernels.form import Rows

BLOCK = 1 << 22  # weights that are unpacked at a time: what is needed beside them stays small


class Packed(NamedTuple):
    """One matrix.

    ``levels`` [rows, columns] are int8 or uint8; or uint8 [rows, columns / 2] with two levels 0..15 in each byte: in a
    group's byte j the low half is of its column j, the high half of its column j + group / 2 (a processor unpacks that
    without moving anything). ``scales`` and ``offsets`` (None: 0) [rows, groups] are of any floating-point type, and a
    group is as many columns as there are in a row for each.
    """

    levels: Tensor
    scales: Tensor
    offsets: Tensor | None

    def weights(self, which: Tensor | slice, columns: int) -> Tensor:
        """These rows as weights, float32 [..., columns]."""
        levels, scales = self.levels[which], self.scales[which]
        groups: Tensor = levels.unflatten(-1, (scales.shape[-1], -1))
        if levels.shape[-1] < columns:
            groups = torch.cat((groups & 15, groups >> 4), dim=-1)
        weights = groups.float() * scales.float()[..., None]
        if self.offsets is not None:
            weights = weights + self.offsets[which].float()[..., None]
        return weights.flatten(-2)


def by_halves(levels: Tensor, groups: int) -> Tensor:
    """Levels [rows, columns / 2] of 4 bits, two neighbours in a byte, the left one in the low half, as Packed wants them."""
    parts = levels.unflatten(1, (groups, -1))
    neighbours = torch.stack((parts & 15, parts >> 4), dim=-1).flatten(-2)
    low, high = neighbours.chunk(2, dim=-1)
    return (low | high << 4).flatten(1)


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

    @property
    def rows(self) -> Rows | None:
        """For Triton."""
        return Rows(self.levels, self.scales, self.offsets, self.columns // self.scales.shape[1])


class PackedLinear(_Holder):
    """Linear layer of a packed matrix, and perhaps a bias [rows]."""

    bias: Tensor | None

    def __init__(self, packed: Packed, columns: int, bias: Tensor | None = None) -> None:
        super().__init__(packed, columns)
        self.register_buffer("bias", bias)

    @property
    def rows(self) -> Rows | None:
        """The same, where a product can read it."""
        rows = super().rows
        return rows if self.bias is None and rows is not None and rows.group % 32 == 0 else None

    def forward(self, x: Tensor) -> Tensor:  # [..., columns] -> [..., rows]
        # One vector is multiplied in float32, which costs nothing where the weights have to be read; of the many vectors
        # of a picture the product counts, in the model's type, as with any other weights.
        type_ = torch.float32 if x.numel() <= 16 * self.columns else x.dtype
        step = max(1, BLOCK // self.columns)
        parts = [
            F.linear(x.to(type_), self.packed.weights(slice(first, first + step), self.columns).to(type_))
            for first in range(0, len(self.levels), step)
        ]
        out = torch.cat(parts, dim=-1).to(x.dtype)
        return out if self.bias is None else out + self.bias

    def unpacked(self, dtype: torch.dtype) -> nn.Linear:
        """The same layer, of floating-point weights."""
        weight = self.packed.weights(slice(None), self.columns).to(dtype)
        layer = nn.Linear(self.columns, len(weight), bias=self.bias is not None, device="meta")
        layer.weight = nn.Parameter(weight, requires_grad=False)
        if self.bias is not None:
            layer.bias = nn.Parameter(self.bias.to(dtype), requires_grad=False)
        return layer


class PackedEmbedding(_Holder):
    """Embedding whose table is a packed matrix."""

    def forward(self, ids: Tensor) -> Tensor:  # [...] -> float32 [..., columns]
        return self.packed.weights(ids, self.columns)


def look_up(table: nn.Module, ids: Tensor) -> Tensor:
    """Rows of an embedding, in its own type, or of a packed one, in float32: no id is -1."""
    out: Tensor = F.embedding(ids, table.weight) if isinstance(table, nn.Embedding) else table(ids)
    return out
