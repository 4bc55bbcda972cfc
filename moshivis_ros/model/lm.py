"""The MoshiVis network: temporal transformer with gated cross-attention, depformer, image prefix.

Module and parameter names are those of the released checkpoint, so a state dict needs no mapping. The
modules hold weights only; everything that changes while talking lives in ``stream.Stream`` and is passed in.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.depformer import DepformerLayer
from moshivis_ros.model.image_encoder import ImagePrefix
from moshivis_ros.model.kernels.attention import attend_image, attend_window
from moshivis_ros.model.kernels.products import add_gated, add_projected, add_swiglu, all_projected, project
from moshivis_ros.model.kernels.state import ImageKV, Position, Window
from moshivis_ros.model.kernels.tokens import add_embedded, embed
from moshivis_ros.model.layers import GatedFeedForward, RMSNorm, TokenEmbedding, store_as_one

GATE_LAYERS = 10  # the reported gate is the mean of the last 10 layers


def window_bytes(config: ModelConfig, dtype: torch.dtype, kv_cache: str | None) -> int:
    """Memory of one conversation's attention window; ``kv_cache`` int8 or None: in ``dtype``."""
    heads = 2 * config.num_layers * config.num_heads * config.context
    width = config.dim // config.num_heads
    return heads * (width + dtype.itemsize if kv_cache else width * dtype.itemsize)


class SelfAttention(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.in_proj = nn.Linear(config.dim, 3 * config.dim, bias=False)
        self.out_proj = nn.Linear(config.dim, config.dim, bias=False)
        store_as_one(self, "in_proj_weight", {"in_proj.weight": 3 * config.dim})

    def forward(self, x: Tensor, norm: RMSNorm, window: Window, at: Position) -> Tensor:
        """``x`` [B, dim] and the attention of ``norm(x)``: [B, dim]."""
        y = attend_window(project(x, norm, self.in_proj), window, at)
        return add_projected(x, y, self.out_proj)


class SharedCrossAttention(nn.Module):
    """Attention to the picture. One instance serves all layers and is stored under layer 0."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.q_proj = nn.Linear(config.dim, config.dim, bias=False)
        self.kv_proj = nn.Linear(config.dim, 2 * config.dim, bias=False)
        self.out_proj = nn.Linear(config.dim, config.dim, bias=False)
        rows = {"q_proj.weight": config.dim, "kv_proj.weight": 2 * config.dim}
        store_as_one(self, "in_proj_weight", rows)

    def keys_values(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values, each [B, H, N, D], of image tokens [B, N, dim]."""
        kv = self.kv_proj(source).unflatten(-1, (2, self.num_heads, -1))
        k, v = kv.permute(2, 0, 3, 1, 4)
        return k, v

    def forward(self, x: Tensor, norm: RMSNorm, image: ImageKV) -> Tensor:
        """The attention of ``norm(x)`` [B, dim]: [B, dim]."""
        out: Tensor = self.out_proj(attend_image(project(x, norm, self.q_proj), image))
        return out


class Gate(nn.Module):
    """How much of the picture enters, per channel: ``sigmoid(W2 relu(W0 y) - 4)`` of the attention's output
    y.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = dim // 8
        self.alpha = nn.Sequential(
            nn.Linear(dim, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, dim, bias=False)
        )

    def forward(self, y: Tensor) -> Tensor:  # [B, dim] -> the same, 0..1
        return torch.sigmoid(self.alpha(y) - 4)


class LayerCrossAttention(nn.Module):
    """The part of the cross-attention that each layer has for itself (its gate), and in layer 0 the shared
    part.
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        if layer == 0:
            self.mha = SharedCrossAttention(config)
        self.gate = Gate(config.dim)


class Layer(nn.Module):
    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.norm1 = RMSNorm(config.dim, config.norm_lm)
        self.self_attn = SelfAttention(config)
        self.norm_cross = RMSNorm(config.dim, config.norm_lm)
        self.cross_attention = LayerCrossAttention(config, layer)
        self.norm2 = RMSNorm(config.dim, config.norm_lm)
        self.gating = GatedFeedForward(config.dim, int(config.hidden_scale * config.dim))

    def forward(
        self, x: Tensor, window: Window, at: Position, shared: SharedCrossAttention, image: ImageKV | None
    ) -> tuple[Tensor, Tensor | None]:
        """Returns the residual stream [B, dim] and the gate [B, dim] (None without a picture)."""
        x = self.self_attn(x, self.norm1, window, at)
        gate = None
        if image is not None:
            y = shared(x, self.norm_cross, image)
            first, _, second = self.cross_attention.gate.alpha
            x, gate = add_gated(x, y, first, second)
        return add_swiglu(x, self.norm2, self.gating.linear_in, self.gating.linear_out), gate


class Transformer(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.num_layers))

    @property
    def shared_cross_attention(self) -> SharedCrossAttention:
        mha = self.layers[0].cross_attention.mha  # type: ignore[union-attr]
        assert isinstance(mha, SharedCrossAttention)
        return mha

    def forward(
        self, x: Tensor, window: Window, at: Position, image: ImageKV | None
    ) -> tuple[Tensor, Tensor]:
        """``x`` [B, dim] -> residual stream [B, dim], mean gates [B, layers]."""
        shared = self.shared_cross_attention
        gates = []
        for i, layer in enumerate(self.layers):
            x, gate = layer(x, window.layer(i), at, shared, image)
            gates.append(gate)
        if image is None:
            return x, x.new_zeros((x.shape[0], len(gates)), dtype=torch.float32)
        return x, torch.stack(gates, dim=1).mean(-1, dtype=torch.float32)


class Helium(nn.Module):
    """The text language model that Moshi grew from."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.text_emb = TokenEmbedding(config.text_card + 1, config.dim)  # one more row: the initial token
        self.transformer = Transformer(config)
        self.out_norm = RMSNorm(config.dim, config.norm_lm)
        self.text_linear = nn.Linear(config.dim, config.text_card, bias=False)


class Depformer(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DepformerLayer(config) for _ in range(config.depformer_num_layers))


class MoshiVis(nn.Module):
    """All weights of a checkpoint (LM, depformer, image encoder), without any state of a conversation."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.llm = Helium(config)
        self.audio_emb = nn.ModuleList(
            TokenEmbedding(config.audio_card + 1, config.dim) for _ in range(config.n_q)
        )
        self.depformer_in = nn.ModuleList(
            nn.Linear(config.dim, config.depformer_dim, bias=False) for _ in range(config.dep_q)
        )
        self.depformer_text_emb = TokenEmbedding(config.text_card + 1, config.depformer_dim)
        self.depformer_emb = nn.ModuleList(
            TokenEmbedding(config.audio_card + 1, config.depformer_dim) for _ in range(config.dep_q - 1)
        )
        self.depformer = Depformer(config)
        self.audio_linears = nn.ModuleList(
            nn.Linear(config.depformer_dim, config.audio_card, bias=False) for _ in range(config.dep_q)
        )
        self.image_prefix = ImagePrefix(config)

    def temporal_step(
        self, tokens: Tensor, window: Window, at: Position, image: ImageKV | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One step of the temporal transformer.

        ``tokens`` [B, 1 + n_q] int64 (-1: no token); returns the hidden state [B, dim] (after out_norm),
        the text logits [B, text_card] and the mean gate of every layer [B, layers] (zeros without a picture).
        """
        x = embed(tokens, [self.llm.text_emb, *self.audio_emb], self.llm.out_norm.alpha.dtype)
        x, gates = self.llm.transformer(x, window, at, image)
        hidden = self.llm.out_norm(x)
        return hidden, self.llm.text_linear(hidden), gates

    def depformer_inputs(self, hidden: Tensor) -> Sequence[Tensor]:
        """What each codebook's depformer step gets [B, depformer_dim] of the frame's hidden state [B, dim]."""
        return all_projected(hidden, list(self.depformer_in))

    def depformer_step(self, codebook: int, x: Tensor, previous: Tensor, kv: Tensor) -> Tensor:
        """Logits [B, audio_card] of one codebook of this frame.

        ``x`` is its part of depformer_inputs; ``previous`` [B] int64 is the text token for codebook 0 and the
        previous codebook's token after that; ``kv`` [layers, B, 2, H, dep_q, D] holds the keys and values of
        this frame's earlier codebooks, and gets those of this one.
        """
        embedding = self.depformer_emb[codebook - 1] if codebook else self.depformer_text_emb
        x = add_embedded(x, previous, embedding)
        for layer, layer_kv in zip(self.depformer.layers, kv.unbind(), strict=True):
            x = layer(x, codebook, layer_kv)
        logits: Tensor = self.audio_linears[codebook](x)  # no norm before it
        return logits

    def image_kv(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-attention keys and values, each [B, H, N, D], of pictures [B, 3, S, S]
        (image_encoder.preprocess).
        """
        return self.llm.transformer.shared_cross_attention.keys_values(self.image_prefix(pixel_values))


def reported_gate(gates: Tensor) -> Tensor:
    """The one number [B] that the reference reports of the gates [B, layers]: mean of the last 10 layers."""
    return gates[:, -GATE_LAYERS:].mean(1)
