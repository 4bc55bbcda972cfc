"""Embeddings and image encoder in 8 bits: they add nothing to a step's time, but to the memory that a small GPU needs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from moshivis_ros.model.layers import TokenEmbedding
from moshivis_ros.model.lm import MoshiVis
from moshivis_ros.model.packed import Packed, PackedEmbedding, PackedLinear

GROUPS = (64, 32, 16)  # columns that share a scale: the largest that divides a row
BLOCK = 1 << 20  # weights that are rounded at a time


def candidates(model: MoshiVis) -> Iterator[nn.Module]:
    """The embeddings, and the linear layers that a picture goes through on its way to keys and values."""
    for name, layer in model.named_modules():
        pictures = "image_prefix." in name or name.endswith(".kv_proj")
        if isinstance(layer, TokenEmbedding) or (isinstance(layer, nn.Linear) and pictures):
            yield layer


def compact(layer: nn.Module) -> PackedEmbedding | PackedLinear | None:
    """``layer`` in 8 bits, a scale of its own type for each group of columns; None where no group divides a row."""
    assert isinstance(layer, (TokenEmbedding, nn.Linear))
    rows, columns = layer.weight.shape
    group = next((size for size in GROUPS if columns % size == 0), None)
    if group is None:
        return None
    packed = _int8(layer.weight.detach(), group)
    if isinstance(layer, TokenEmbedding):
        return PackedEmbedding(packed, columns)
    return PackedLinear(packed, columns, None if layer.bias is None else layer.bias.detach())


def _int8(weight: Tensor, group: int) -> Packed:
    rows, columns = weight.shape
    levels = weight.new_empty(rows, columns, dtype=torch.int8)
    scales = weight.new_empty(rows, columns // group)
    step = max(1, BLOCK // columns)
    for first in range(0, 0 if weight.is_meta else rows, step):
        part = slice(first, first + step)
        groups = weight[part].float().unflatten(1, (-1, group))
        scales[part] = (groups.abs().amax(-1) / 127).clamp(min=1e-9)
        # rounded to the scales as they are kept
        rounded = (groups / scales[part].float()[..., None]).round().clamp(-127, 127)
        levels[part] = rounded.flatten(1).to(torch.int8)
    return Packed(levels, scales, None)
