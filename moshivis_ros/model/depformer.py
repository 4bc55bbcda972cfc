"""One layer of the depformer: a small transformer over the codebooks of one frame, with weights per
codebook.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.layers import GatedFeedForward, RMSNorm


class _Projection(nn.Module):
    """A bare weight, to keep the released name ``out_proj.weight``."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, columns))


class DepformerAttention(nn.Module):
    """Causal attention over the codebooks of one frame: no position embedding, nothing kept between
    frames.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.depformer_dim
        self.num_heads = config.depformer_num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(config.dep_q * 3 * dim, dim))
        self.out_proj = _Projection(config.dep_q * dim, dim)

    def forward(self, x: Tensor, codebook: int, kv: Tensor) -> Tensor:
        dim = x.shape[-1]
        weight_in = self.in_proj_weight[codebook * 3 * dim : (codebook + 1) * 3 * dim]
        weight_out = self.out_proj.weight[codebook * dim : (codebook + 1) * dim]
        qkv = F.linear(x, weight_in).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        kv[:, :, :, codebook : codebook + 1] = qkv[1:]
        k, v = kv[:, :, :, : codebook + 1]
        y = F.scaled_dot_product_attention(qkv[0], k, v)
        return F.linear(y.transpose(1, 2).flatten(2), weight_out)


class DepformerLayer(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.depformer_dim
        self.norm1 = RMSNorm(dim, config.norm)
        self.self_attn = DepformerAttention(config)
        self.norm2 = RMSNorm(dim, config.norm)
        self.gating = nn.ModuleList(
            GatedFeedForward(dim, config.depformer_dim_feedforward) for _ in range(config.dep_q)
        )

    def forward(self, x: Tensor, codebook: int, kv: Tensor) -> Tensor:
        """``x`` [B, 1, depformer_dim]; ``kv`` [2, B, H, dep_q, D] is written at ``codebook``."""
        x = x + self.self_attn(self.norm1(x), codebook, kv)
        out: Tensor = x + self.gating[codebook](self.norm2(x))
        return out
