"""Weights in 8 or 4 bits, computed with in the model's type: drop-in linear layers, and how to put them in.

At batch 1 a step takes as long as its weights take to be read, so smaller weights are a faster model.
Embeddings, norms and the image encoder keep their type.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from moshivis_ros.errors import ConfigError
from moshivis_ros.model.lm import MoshiVis

FORMS = ("int8", "int4")
GROUPS = (128, 64, 32)  # columns that share a scale in int4: the largest that divides a layer


class Int8Linear(nn.Module):
    """Linear layer without bias: 255 levels, one scale per output channel. The input is rounded to bfloat16."""

    values: Tensor
    scales: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        exact = weight.float()
        scales = (exact.abs().amax(1) / 127).clamp(min=1e-9).bfloat16()
        # rounded to the scales as the kernel sees them
        values = (exact / scales.float()[:, None]).round().clamp(-127, 127).to(torch.int8)
        self.register_buffer("values", values)
        self.register_buffer("scales", scales)

    def forward(self, x: Tensor) -> Tensor:  # [B, columns] -> [B, rows]
        return torch._weight_int8pack_mm(x.bfloat16(), self.values, self.scales).to(x.dtype)


class Int4Linear(nn.Module):
    """Linear layer without bias: 16 levels, with a scale and an offset for every group of columns of a row.

    Packed for torch's kernel of the device it was made on (on a GPU the tensor-core kernel that torchao
    uses, for bfloat16), so it stays there.
    """

    values: Tensor
    scales: Tensor

    def __init__(self, weight: Tensor, group: int) -> None:
        super().__init__()
        self.group = group
        groups = weight.float().unflatten(1, (-1, group))  # [rows, columns / group, group]
        low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
        step = ((high - low) / 15).clamp(min=1e-9).to(weight.dtype).float()
        # the kernels compute (level - 8) * step + middle
        middle = (low + 8 * step).to(weight.dtype).float()
        levels = ((groups - middle) / step + 8).round().clamp(0, 15).flatten(1).to(torch.int32)
        if weight.is_cuda:
            pairs = (levels[:, ::2] << 4 | levels[:, 1::2]).to(torch.uint8)
            values = torch._convert_weight_to_int4pack(pairs, 8)
        else:
            values = torch._convert_weight_to_int4pack_for_cpu(levels, 1)
        scales = torch.cat((step, middle), dim=-1).transpose(0, 1).contiguous().to(weight.dtype)
        self.register_buffer("values", values)
        self.register_buffer("scales", scales)  # [columns / group, rows, 2]

    def forward(self, x: Tensor) -> Tensor:  # [B, columns] -> [B, rows]
        multiply = torch._weight_int4pack_mm if x.is_cuda else torch._weight_int4pack_mm_for_cpu
        return multiply(x, self.values, self.group, self.scales)


class Quantizer:
    """Replaces the linear layers of ``model`` that a step reads, once they hold their weights.

    ``form`` is int8 (a scale per channel) or int4 (a scale per 128 columns, or per 64 or 32 where 128 does
    not divide a layer). Layers of a width that 16 (int8) or 32 (int4) does not divide stay: there are none in
    the released model. Raises ConfigError for another form.
    """

    def __init__(self, model: MoshiVis, form: str) -> None:
        if form not in FORMS:
            raise ConfigError(f"quantize must be one of {', '.join(FORMS)}, not {form!r}")
        self.form = form
        parts = (model.llm, model.depformer_in, model.depformer, model.audio_linears)
        self.layers = {
            layer
            for part in parts
            for name, layer in part.named_modules()
            if isinstance(layer, nn.Linear) and not name.endswith("kv_proj")  # that one encodes pictures
        }

    def shrink(self, part: nn.Module) -> None:
        """Replace what is filled in ``part``."""
        for parent in list(part.modules()):
            for name, layer in list(parent.named_children()):
                if layer in self.layers and not layer.weight.is_meta:
                    setattr(parent, name, self._quantized(layer))

    def saved_bytes(self, dtype: torch.dtype) -> int:
        """About how much smaller than in ``dtype`` the layers will be."""
        weights = sum(layer.weight.numel() for layer in self.layers)
        return int(weights * (dtype.itemsize - (1 if self.form == "int8" else 0.55)))

    def _quantized(self, layer: nn.Linear) -> nn.Module:
        rows, columns = layer.weight.shape
        if self.form == "int8":
            # torch's kernel for CPUs reads past the end of other rows (seen in 2.13)
            return layer if columns % 16 else Int8Linear(layer.weight)
        group = next((size for size in GROUPS if columns % size == 0), None)
        return layer if group is None or rows % 16 else Int4Linear(layer.weight, group)


def quantize(model: MoshiVis, form: str) -> MoshiVis:
    """Quantise a loaded model in place; see Quantizer. Returns it."""
    Quantizer(model, form).shrink(model)
    return model
