"""What attention reads and writes, beside the weights."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Position(NamedTuple):
    """Where one streaming step stands: computed once, used by every layer. Where several steps of one conversation are
    computed at once, each tensor has a row for each of them.
    """

    offset: Tensor  # [1] int64, frames before this one
    slot: Tensor  # [1] int64, place in the ring
    mask: Tensor  # [1, context], 0 for ring entries that hold a key, -inf for the others
    cos: Tensor  # [3, 1, 1, D] float32, for query, key and value: a value is turned by the angle 0
    sin: Tensor  # [3, 1, 1, D] float32


class Window(NamedTuple):
    """Keys and values of the latest frames: a ring, written in place.

    With ``scales`` the ring is int8, and each head of each frame has a scale.
    """

    kv: Tensor  # [B, 2, H, context, D]; of all layers: [layers, ...]
    scales: Tensor | None  # the same with D = 1, or None: kv is in the model's type

    def layer(self, index: int) -> Window:
        return Window(self.kv[index], None if self.scales is None else self.scales[index])

    def first(self, frames: int) -> Window:
        """The room of that many frames only, of all layers."""
        scales = None if self.scales is None else self.scales[..., :frames, :]
        return Window(self.kv[..., :frames, :], scales)

    def put(self, slot: Tensor, kv: Tensor) -> tuple[Tensor, Tensor]:
        """Write one frame's ``kv`` [B, 2, H, 1, D]; returns all keys and all values, [B, H, context, D] each.

        Of one conversation as many frames as ``slot`` has, [frames, 2, H, 1, D].
        """
        if len(slot) > 1:
            kv = kv.transpose(0, 3)
        if self.scales is None:
            self.kv.index_copy_(3, slot, kv)
            k, v = self.kv.unbind(1)
        else:
            exact = kv.float()
            scales = (exact.abs().amax(-1, keepdim=True) / 127).clamp(min=1e-6).to(kv.dtype)
            levels = (exact / scales.float()).round().clamp(-127, 127)
            self.scales.index_copy_(3, slot, scales)
            self.kv.index_copy_(3, slot, levels.to(torch.int8))
            k, v = (self.kv * self.scales).unbind(1)  # of one layer at a time
        return k, v


class ImageKV(NamedTuple):
    """Keys and values of one picture, shared by all layers (they have one cross-attention between them)."""

    k: Tensor  # [B, H, N, D]
    v: Tensor  # [B, H, N, D]
    mask: Tensor  # [1, N], 0 for entries that hold a token of the picture, -inf for the others
