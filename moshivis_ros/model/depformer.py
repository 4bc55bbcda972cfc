"""One layer of the depformer: a small transformer over the codebooks of one frame, with weights per
codebook.
"""

from __future__ import annotations

from torch import Tensor, nn

from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.kernels.attention import attend_codebooks
from moshivis_ros.model.kernels.products import add_projected, add_swiglu, project
from moshivis_ros.model.layers import GatedFeedForward, RMSNorm, store_as_one


class DepformerAttention(nn.Module):
    """Causal attention over the codebooks of one frame: no position embedding, nothing kept between
    frames.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.depformer_dim
        codebooks = range(config.dep_q)
        self.in_proj = nn.ModuleList(nn.Linear(dim, 3 * dim, bias=False) for _ in codebooks)
        self.out_proj = nn.ModuleList(nn.Linear(dim, dim, bias=False) for _ in codebooks)
        store_as_one(self, "in_proj_weight", {f"in_proj.{i}.weight": 3 * dim for i in codebooks})
        store_as_one(self, "out_proj.weight", {f"out_proj.{i}.weight": dim for i in codebooks})

    def forward(self, x: Tensor, norm: RMSNorm, codebook: int, kv: Tensor) -> Tensor:
        """``x`` [B, dim] and the attention of ``norm(x)``: [B, dim]; ``kv`` as in DepformerLayer."""
        y = attend_codebooks(project(x, norm, self.in_proj[codebook]), kv, codebook)
        return add_projected(x, y, self.out_proj[codebook])


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
        """The residual stream [B, depformer_dim]. ``kv`` [B, 2, H, dep_q, D] holds the keys and values of this
        frame's earlier codebooks, and gets those of this one.
        """
        x = self.self_attn(x, self.norm1, codebook, kv)
        gating = self.gating[codebook]
        return add_swiglu(x, self.norm2, gating.linear_in, gating.linear_out)  # type: ignore[arg-type]
