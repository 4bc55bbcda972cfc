"""Linear layers with what comes before and after them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moshivis_ros.model.kernels.form import Rows, dense, fused, rows_of, runs_on

# Shapes: x [B, dim]; linear layers have no bias.
BLOCK = 1 << 24  # weights that are unpacked at a time: what is needed beside them stays small


def linear(x: Tensor, layer: nn.Module) -> Tensor:
    """The product with a layer that can say how its weight is read (form.rows_of)."""
    if fused(x, layer):
        from moshivis_ros.model.kernels import triton_products

        return triton_products.product(x, layer)
    rows = rows_of(layer)
    assert rows is not None
    step = max(1, BLOCK // x.shape[1])
    parts = [rows.part(slice(first, first + step)) for first in range(0, len(rows.values), step)]
    return torch.cat([F.linear(x, _unpacked(part, x.dtype)) for part in parts], dim=1)


def _unpacked(rows: Rows, dtype: torch.dtype) -> Tensor:
    """The weight [rows, columns] in floating point."""
    if rows.scales is not None and runs_on(rows.values):
        from moshivis_ros.model.kernels import triton_products

        return triton_products.unpacked(rows, dtype)
    return dense(rows, dtype)


def project(x: Tensor, norm: nn.Module, layer: nn.Module) -> Tensor:
    """``layer(norm(x))``."""
    if fused(x, layer):
        from moshivis_ros.model.kernels import triton_products

        return triton_products.product(x, layer, norm)
    out: Tensor = layer(norm(x))
    return out


def add_projected(x: Tensor, y: Tensor, layer: nn.Module) -> Tensor:
    """``x + layer(y)``."""
    if fused(x, layer):
        from moshivis_ros.model.kernels import triton_products

        return triton_products.product(y, layer, end="add", add=x)
    out: Tensor = x + layer(y)
    return out


def add_swiglu(x: Tensor, norm: nn.Module, layer_in: nn.Module, layer_out: nn.Module) -> Tensor:
    """``x + layer_out(silu(a) * b)`` with ``a, b`` the two halves of ``layer_in(norm(x))``."""
    if fused(x, layer_in, layer_out):
        from moshivis_ros.model.kernels import triton_products

        hidden = triton_products.product(x, layer_in, norm, end="swiglu")
        return triton_products.product(hidden, layer_out, end="add", add=x)
    a, b = layer_in(norm(x)).chunk(2, dim=-1)
    out: Tensor = x + layer_out(F.silu(a) * b)
    return out


def add_gated(x: Tensor, y: Tensor, first: nn.Module, second: nn.Module) -> tuple[Tensor, Tensor]:
    """``x + y * gate`` and the gate [B, dim]: ``sigmoid(second(relu(first(y))) - 4)``."""
    if fused(x, first, second):
        from moshivis_ros.model.kernels import triton_products

        hidden = triton_products.product(y, first, end="relu")
        gate = torch.empty_like(x)
        return triton_products.product(hidden, second, end="gate", add=x, factor=y, gate=gate), gate
    gate = torch.sigmoid(second(F.relu(first(y))) - 4)
    return torch.addcmul(x, y, gate), gate


def all_projected(x: Tensor, layers: Sequence[nn.Module]) -> Sequence[Tensor]:
    """``layer(x)`` for each of ``layers``, which are of one shape and form."""
    if fused(x, *layers):
        from moshivis_ros.model.kernels import triton_products

        return triton_products.products(x, layers).unbind()
    return [layer(x) for layer in layers]
