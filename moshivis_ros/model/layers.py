"""Building blocks shared by the temporal transformer and the depformer."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """Root-mean-square norm in one of the four forms of the reference (kyuteye_pt, ``NormalizationLayer``).

    ``real_*`` divides by the root of the mean square. The others divide by the root of the unbiased variance
    while the numerator keeps its mean: that is how the released weights were trained. ``*_f32`` computes in
    float32 with eps 1e-8; the others in the input's type with eps 1e-5.
    """

    def __init__(self, dim: int, form: str) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, 1, dim))
        self.mean_square = form.startswith("real_")
        self.float32 = form.endswith("_f32")
        self.eps = 1e-8 if self.float32 else 1e-5

    def forward(self, x: Tensor) -> Tensor:  # [..., dim] -> the same
        alpha = self.alpha.flatten()
        if self.mean_square:
            return F.rms_norm(x, alpha.shape, alpha.to(x.dtype), self.eps)  # computes in float32 whatever the type
        y = x.float() if self.float32 else x
        variance, _ = torch.var_mean(y, -1, keepdim=True)  # on CPUs quicker than var()
        scale = torch.rsqrt(variance + self.eps)
        return (y * (alpha * scale)).to(x.dtype)


def store_as_one(module: nn.Module, name: str, parts: dict[str, int]) -> None:
    """In the state dict of ``module``, store several weights as one: checkpoints do that with projections.

    ``parts`` are the names of the weights and their numbers of rows. Parts that are not there (they have been
    quantised, and have other names) are left alone.
    """

    def join(_: nn.Module, state: dict[str, Tensor], prefix: str, __: Any) -> None:
        if all(prefix + part in state for part in parts):
            weights = [state.pop(prefix + part) for part in parts]
            rows, first = sum(parts.values()), weights[0]
            # To join what has no memory torch would load its compiler, which takes a second.
            state[prefix + name] = (
                first.new_empty(rows, *first.shape[1:]) if first.is_meta else torch.cat(weights)
            )

    def split(state: dict[str, Tensor], prefix: str, *_: Any) -> None:
        if prefix + name in state:
            weights = state.pop(prefix + name).split(list(parts.values()))
            state.update({prefix + part: weight for part, weight in zip(parts, weights, strict=True)})

    module._register_state_dict_hook(join)
    module._register_load_state_dict_pre_hook(split)


def lay_out_by_columns(module: nn.Module) -> None:
    """Put the weights of the linear layers of ``module`` into memory column by column; shapes and values stay.

    One vector times such a weight adds up scaled columns, which a processor reads straight through, where rows
    would each end in a sum across the vector unit: on CPUs a third less time (docs/performance.md).
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            layer.weight.data = layer.weight.data.T.contiguous().T


class GatedFeedForward(nn.Module):
    """SwiGLU: ``linear_out(silu(a) * b)`` with ``a, b`` the two halves of ``linear_in(x)``."""

    def __init__(self, dim: int, dim_feedforward: int) -> None:
        super().__init__()
        hidden = 21 * dim // 8 if dim_feedforward == 4 * dim else 2 * dim_feedforward // 3
        self.linear_in = nn.Linear(dim, 2 * hidden, bias=False)
        self.linear_out = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # [..., dim] -> the same
        a, b = self.linear_in(x).chunk(2, dim=-1)
        out: Tensor = self.linear_out(F.silu(a) * b)
        return out


class TokenEmbedding(nn.Embedding):
    """Embedding in which id -1 is the zero vector. Any other id outside the table is an error, not row 0."""

    def forward(self, ids: Tensor) -> Tensor:  # [...] -> [..., dim]
        absent = ids == -1
        out = F.embedding(ids.masked_fill(absent, 0), self.weight)
        return out.masked_fill(absent[..., None], 0)


def rotary_frequencies(head_dim: int, max_period: float) -> Tensor:
    """Angle per frame of each interleaved pair (2i, 2i + 1) of a head: [head_dim / 2] float32."""
    return max_period ** (-2 * torch.arange(head_dim // 2, dtype=torch.float32) / head_dim)


def rotary(offset: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor]:
    """What ``kernels.attention.rotate`` needs at the positions ``offset``: two factors [..., D], float32.

    ``offset`` [..., 1] and ``frequencies`` [..., D / 2] broadcast.
    """
    angle = offset * frequencies
    cos, sin = angle.cos(), angle.sin()
    return torch.stack((cos, cos), dim=-1).flatten(-2), torch.stack((-sin, sin), dim=-1).flatten(-2)
