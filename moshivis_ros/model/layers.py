"""Building blocks shared by the temporal transformer and the depformer."""

from __future__ import annotations

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

    def forward(self, x: Tensor) -> Tensor:  # [B, T, dim] -> the same
        y = x.float() if self.float32 else x
        power = y.square().mean(-1, keepdim=True) if self.mean_square else y.var(-1, keepdim=True)
        return (y * (self.alpha.to(y.dtype) * torch.rsqrt(power + self.eps))).to(x.dtype)


class GatedFeedForward(nn.Module):
    """SwiGLU: ``linear_out(silu(a) * b)`` with ``a, b`` the two halves of ``linear_in(x)``."""

    def __init__(self, dim: int, dim_feedforward: int) -> None:
        super().__init__()
        hidden = 21 * dim // 8 if dim_feedforward == 4 * dim else 2 * dim_feedforward // 3
        self.linear_in = nn.Linear(dim, 2 * hidden, bias=False)
        self.linear_out = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # [B, T, dim] -> the same
        a, b = self.linear_in(x).chunk(2, dim=-1)
        out: Tensor = self.linear_out(F.silu(a) * b)
        return out


class TokenEmbedding(nn.Embedding):
    """Embedding in which id -1 is the zero vector. Any other id outside the table is an error, not row 0."""

    def forward(self, ids: Tensor) -> Tensor:  # [...] -> [..., dim]
        absent = ids == -1
        out = F.embedding(torch.where(absent, 0, ids), self.weight)
        return out.masked_fill(absent[..., None], 0)


def rotary(offset: Tensor, head_dim: int, max_period: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the rotary embedding at positions ``offset`` [T], each [T, head_dim / 2] in
    float32.
    """
    pair = torch.arange(head_dim // 2, device=offset.device, dtype=torch.float32)
    angle = offset.float()[:, None] * max_period ** (-2 * pair / head_dim)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the interleaved pairs (2i, 2i + 1) of ``x`` [..., T, D] by the angles of ``rotary``, in
    float32.
    """
    re, im = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((re * cos - im * sin, re * sin + im * cos), dim=-1).flatten(-2).to(x.dtype)
