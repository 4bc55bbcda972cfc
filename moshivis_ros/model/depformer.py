"""One layer of the depformer: a small transformer over the codebooks of one frame, with weights per
codebook.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.layers import GatedFeedForward, RMSNorm, store_as_one


class DepformerAttention(nn.Module):
    """Causal attention over the codebooks of one frame: no position embedding, nothing kept between
    frames.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.depformer_dim
        self.num_heads = config.depformer_num_heads
        codebooks = range(config.dep_q)
        self.in_proj = nn.ModuleList(nn.Linear(dim, 3 * dim, bias=False) for _ in codebooks)
        self.out_proj = nn.ModuleList(nn.Linear(dim, dim, bias=False) for _ in codebooks)
        store_as_one(self, "in_proj_weight", {f"in_proj.{i}.weight": 3 * dim for i in codebooks})
        store_as_one(self, "out_proj.weight", {f"out_proj.{i}.weight": dim for i in codebooks})

    def forward(self, x: Tensor, codebook: int, past: Tensor | None) -> tuple[Tensor, Tensor]:
        qkv = self.in_proj[codebook](x).unflatten(-1, (3, self.num_heads, 1, -1))  # [B, 3, H, 1, D]
        kv = qkv.narrow(1, 1, 2)
        if past is not None:
            kv = torch.cat((past, kv), dim=3)
        y = F.scaled_dot_product_attention(qkv.select(1, 0), *kv.unbind(1))  # [B, H, 1, D]
        return self.out_proj[codebook](y.flatten(1)), kv


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

    def forward(self, x: Tensor, codebook: int, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """``x`` [B, depformer_dim]; ``past`` [B, 2, H, codebook, D] are the keys and values of this frame's
        earlier codebooks (None: this is the first). Returns the residual stream, and those including this one.
        """
        y, kv = self.self_attn(self.norm1(x), codebook, past)
        x = x + y
        return x + self.gating[codebook](self.norm2(x)), kv
