"""Weights in 8 or 4 bits, computed with in the model's type: drop-in linear layers, and how to put them in.

At batch 1 a step takes as long as its weights take to be read, so smaller weights are a faster model.
Embeddings and image encoder are in 8 bits with either (see compact.py); norms keep their type.
"""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn

from moshivis_ros.errors import ConfigError
from moshivis_ros.model.compact import GROUPS as COMPACT_GROUPS
from moshivis_ros.model.compact import candidates, compact
from moshivis_ros.model.kernels.form import INTERPRETED, Rows
from moshivis_ros.model.kernels.products import linear
from moshivis_ros.model.lm import MoshiVis

FORMS = ("int8", "int4")
GROUPS = (128, 64, 32)  # columns that share a scale in int4: the largest that divides a layer
FITS = 4  # of steps and middles to the weights: more hardly help
ROWS = 64  # that are rounded or packed at a time: what is needed beside the weights stays small
GPU_ROWS = 4096  # the same on a GPU, where each time costs a launch


class StoredWeight(nn.Module):
    """The weight of a linear layer as a file holds it, the same for every device.

    int8: ``values`` int8 [rows, columns] times ``scales`` bfloat16 [rows].
    int4: ``values`` uint8 [rows, columns / 2] are two levels 0..15 each, the left one in the high half; ``scales``
    [rows, columns / group, 2] are the step and the middle of a group: weight = (level - 8) * step + middle.
    """

    values: Tensor
    scales: Tensor

    def __init__(self, values: Tensor, scales: Tensor) -> None:
        super().__init__()
        self.register_buffer("values", values)
        self.register_buffer("scales", scales)

    def linear(self) -> RowsLinear | Int8Linear | Int4Linear:
        """Made ready for the device that it is on."""
        values, scales = self.values, self.scales
        by_rows = values.is_cuda or INTERPRETED
        if values.dtype == torch.int8:
            whole = Rows(values, scales.bfloat16(), None, values.shape[1])
            return RowsLinear(whole) if by_rows else Int8Linear(values, scales)
        if not by_rows:
            return Int4Linear(values, scales)
        group = 2 * values.shape[1] // scales.shape[1]
        step, middle = (part.contiguous() for part in scales.unbind(-1))
        return RowsLinear(
            Rows(_packed(values, lambda part: _by_halves(part, group)), step, middle, group, zero=8)
        )


class RowsLinear(nn.Module):
    """Linear layer without bias, of any form of weight that Triton's product reads (see kernels.form.Rows)."""

    values: Tensor
    scales: Tensor | None
    offsets: Tensor | None

    def __init__(self, rows: Rows) -> None:
        super().__init__()
        self.register_buffer("values", rows.values)
        self.register_buffer("scales", rows.scales)
        self.register_buffer("offsets", rows.offsets)
        self.group, self.zero = rows.group, rows.zero

    @property
    def rows(self) -> Rows:
        return Rows(self.values, self.scales, self.offsets, self.group, self.zero)

    def forward(self, x: Tensor) -> Tensor:  # [B, columns] -> [B, rows]
        return linear(x, self)


class Int8Linear(nn.Module):
    """Linear layer without bias: 255 levels, one scale per output channel. Torch's kernel for CPUs.

    The input is rounded to bfloat16.
    """

    values: Tensor
    scales: Tensor

    def __init__(self, values: Tensor, scales: Tensor) -> None:
        super().__init__()
        self.register_buffer("values", values)
        self.register_buffer("scales", scales.bfloat16())

    def forward(self, x: Tensor) -> Tensor:  # [B, columns] -> [B, rows]
        return torch._weight_int8pack_mm(x.bfloat16(), self.values, self.scales).to(x.dtype)


class Int4Linear(nn.Module):
    """Linear layer without bias: 16 levels, with a scale and an offset for every group of columns of a row.

    Packed for torch's kernel for CPUs, which is quick with scales and input in bfloat16 only (80 times: 4096 x 4096 in
    0.9 and 69 ms on one core of an EPYC). See StoredWeight.
    """

    values: Tensor
    scales: Tensor

    def __init__(self, values: Tensor, scales: Tensor) -> None:
        super().__init__()
        self.group = 2 * values.shape[1] // scales.shape[1]
        self.register_buffer("values", _packed(values, _pack_for_cpu))
        by_columns = scales.bfloat16().transpose(0, 1).contiguous()  # [columns / group, rows, 2]
        self.register_buffer("scales", by_columns)

    def forward(self, x: Tensor) -> Tensor:  # [B, columns] -> [B, rows]
        out = torch._weight_int4pack_mm_for_cpu(x.bfloat16(), self.values, self.group, self.scales)
        return out.to(x.dtype)


class Quantizer:
    """Replaces the linear layers of ``model`` that a step reads, once they hold their weights.

    ``form`` is int8 (a scale per channel) or int4 (a scale per 128 columns, or per 64 or 32 where 128 does
    not divide a layer). With int4 the depformer stays in int8: it is small, and most of the damage to the sound
    would be done there (docs/performance.md). Layers of a width that 16 (int8) or 32 (int4) does not divide stay:
    there are none in the released model. Raises ConfigError for another form.
    """

    def __init__(self, model: MoshiVis, form: str) -> None:
        if form not in FORMS:
            raise ConfigError(f"quantize must be one of {', '.join(FORMS)}, not {form!r}")
        self.model = model
        self.others = WeakSet(candidates(model))
        depformer = (model.depformer_in, model.depformer, model.audio_linears)
        self.layers = WeakKeyDictionary(  # it must not keep what has been replaced
            {
                layer: part_form
                for part, part_form in ((model.llm, form), *((part, "int8") for part in depformer))
                for layer in part.modules()
                if isinstance(layer, nn.Linear) and layer not in self.others
            }
        )

    def expect(self) -> None:
        """Make room for quantised weights in a model on the meta device, as a file of this form holds them."""
        _replace(self.model, self._stored)

    def store(self, part: nn.Module) -> None:
        """Quantise what is filled in ``part``, for a file."""
        _replace(part, lambda layer: None if _empty(layer) else self._stored(layer))

    def shrink(self, part: nn.Module) -> None:
        """Quantise what is filled in ``part``, and make ready for use what is or was quantised."""
        self.store(part)
        _replace(
            part,
            lambda layer: layer.linear() if isinstance(layer, StoredWeight) and not _empty(layer) else None,
        )

    def saved_bytes(self, dtype: torch.dtype) -> int:
        """About how much smaller than in ``dtype`` the layers will be."""
        sizes = {"int8": 1.001, "int4": 0.5 + 2 * dtype.itemsize / GROUPS[0]}
        steps: dict[str, int] = dict.fromkeys(sizes, 0)
        for layer, form in self.layers.items():
            steps[form] += layer.weight.numel()
        others = sum(weight.numel() for layer in self.others for weight in layer.parameters())
        saved = sum(weights * (dtype.itemsize - sizes[form]) for form, weights in steps.items())
        return int(saved + others * (dtype.itemsize - 1 - dtype.itemsize / COMPACT_GROUPS[0]))

    def _stored(self, layer: nn.Module) -> nn.Module | None:
        if layer in self.others:
            return compact(layer)
        if layer not in self.layers:
            return None
        assert isinstance(layer, nn.Linear)
        rows, columns = layer.weight.shape
        if self.layers[layer] == "int8":
            # torch's kernel for CPUs reads past the end of other rows (seen in 2.13)
            return None if columns % 16 else StoredWeight(*rounded_int8(layer.weight.detach()))
        group = next((size for size in GROUPS if columns % size == 0), None)
        if group is None or rows % 16:
            return None
        return StoredWeight(*_by_rows(layer.weight.detach().unflatten(1, (-1, group)), _int4))


def quantize(model: MoshiVis, form: str) -> MoshiVis:
    """Quantise a loaded model in place; see Quantizer. Returns it."""
    Quantizer(model, form).shrink(model)
    return model


def rounded_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Values and scales of StoredWeight."""
    return _by_rows(weight, _int8)


def _replace(part: nn.Module, other: Callable[[nn.Module], nn.Module | None]) -> None:
    """Put ``other(layer)``, where that is not None, in place of every layer of ``part``."""
    for parent in list(part.modules()):
        for name, layer in list(parent.named_children()):
            new = other(layer)
            if new is not None:
                setattr(parent, name, new)


def _empty(layer: nn.Module) -> bool:
    return any(tensor.is_meta for tensor in (*layer.parameters(), *layer.buffers()))


def _by_rows(weight: Tensor, rounded: Callable[[Tensor], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    row = torch.ones(
        1, *weight.shape[1:], dtype=weight.dtype
    )  # for shapes and types: on "meta" this would take seconds
    values, scales = (
        torch.empty(len(weight), *part.shape[1:], dtype=part.dtype, device=weight.device)
        for part in rounded(row)
    )
    if weight.is_meta:
        return values, scales
    for rows in range(0, len(weight), ROWS):
        part = slice(rows, rows + ROWS)
        values[part], scales[part] = rounded(weight[part])
    return values, scales


def _int8(rows: Tensor) -> tuple[Tensor, Tensor]:  # [rows, columns] -> values, scales of StoredWeight
    exact = rows.float()
    scales = (exact.abs().amax(1) / 127).clamp(min=1e-9).bfloat16()
    # rounded to the scales as the kernel sees them
    values = (exact / scales.float()[:, None]).round().clamp(-127, 127).to(torch.int8)
    return values, scales


def _int4(rows: Tensor) -> tuple[Tensor, Tensor]:  # [rows, groups, group] -> values, scales of StoredWeight
    groups = rows.float()
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    step = ((high - low) / 15).clamp(min=1e-9)
    middle = low + 8 * step
    # From the extremes, which are few, to what is best for all: step and middle that fit the levels best (least squares),
    # then the levels nearest to the weights, and again.
    mean = groups.mean(-1, keepdim=True)
    for _ in range(FITS):
        levels = torch.sub(groups, middle).div_(step).round_().clamp_(-8, 7)
        mean_level = levels.mean(-1, keepdim=True)
        variance = levels.square().mean(-1, keepdim=True) - mean_level.square()
        covariance = (levels * groups).mean(-1, keepdim=True) - mean_level * mean
        step = torch.where(variance > 1e-6, covariance / variance, step).clamp(min=1e-9)
        middle = mean - step * mean_level
    step, middle = step.to(rows.dtype).float(), middle.to(rows.dtype).float()
    levels = ((groups - middle) / step + 8).round().clamp(0, 15).to(torch.uint8).flatten(1)
    return levels[:, ::2] << 4 | levels[:, 1::2], torch.cat((step, middle), dim=-1).to(rows.dtype)


def _packed(values: Tensor, pack: Callable[[Tensor], Tensor]) -> Tensor:
    packed = torch.empty_like(values)
    at_once = ROWS if values.device.type == "cpu" else GPU_ROWS
    for rows in range(0, len(values), at_once):
        packed[rows : rows + at_once] = pack(values[rows : rows + at_once])
    return packed


def _pack_for_cpu(values: Tensor) -> Tensor:
    return torch._convert_weight_to_int4pack_for_cpu(_levels(values).to(torch.int32), 1)


def _by_halves(values: Tensor, group: int) -> Tensor:
    low, high = _levels(values).unflatten(1, (-1, 2, group // 2)).unbind(2)
    return torch.flatten(high << 4 | low, 1)


def _levels(values: Tensor) -> Tensor:  # of StoredWeight -> [rows, columns] 0..15
    return torch.stack((values >> 4, values & 15), dim=-1).flatten(1)
