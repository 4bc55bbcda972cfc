"""The MoshiVis network: temporal transformer with gated cross-attention, depformer, image prefix.

Module and parameter names are those of the released checkpoint, so a state dict needs no mapping. The
modules hold weights only; everything that changes while talking lives in ``stream.Stream`` and is passed in.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.depformer import DepformerLayer
from moshivis_ros.model.image_encoder import ImagePrefix
from moshivis_ros.model.layers import GatedFeedForward, RMSNorm, TokenEmbedding, rotate, store_as_one
from moshivis_ros.model.packed import look_up

GATE_LAYERS = 10  # the reported gate is the mean of the last 10 layers


class Position(NamedTuple):
    """Where one streaming step stands: computed once, used by every layer."""

    slot: Tensor  # [1] int64, place in the ring
    mask: Tensor  # [1, context], 0 for ring entries that hold a key, -inf for the others
    cos: Tensor  # [3, 1, 1, D] float32, for query, key and value: a value is turned by the angle 0
    sin: Tensor  # [3, 1, 1, D] float32


class Window(NamedTuple):
    """Keys and values of the latest frames: a ring, written in place.

    With ``scales`` the ring is int8, and each head of each frame has a scale.
    """

    kv: Tensor  # [B, 2, H, context, D]; of all layers: [layers, ...]
    scales: Tensor | None  # the same with D = 1, or None: kv is in the model's type

    def layer(self, index: int) -> Window:
        return Window(self.kv[index], None if self.scales is None else self.scales[index])

    def put(self, slot: Tensor, kv: Tensor) -> tuple[Tensor, Tensor]:
        """Write one frame's ``kv`` [B, 2, H, 1, D]; returns all keys and all values, [B, H, context, D] each."""
        if self.scales is None:
            self.kv.index_copy_(3, slot, kv)
            k, v = self.kv.unbind(1)
        else:
            exact = kv.float()
            scales = (exact.abs().amax(-1, keepdim=True) / 127).clamp(min=1e-6).to(kv.dtype)
            levels = (exact / scales.float()).round().clamp(-127, 127)
            self.scales.index_copy_(3, slot, scales)
            self.kv.index_copy_(3, slot, levels.to(torch.int8))
            k, v = (self.kv * self.scales).unbind(1)  # of one layer at a time
        return k, v


def window_bytes(config: ModelConfig, dtype: torch.dtype, kv_cache: str | None) -> int:
    """Memory of one conversation's attention window; ``kv_cache`` int8 or None: in ``dtype``."""
    heads = 2 * config.num_layers * config.num_heads * config.context
    width = config.dim // config.num_heads
    return heads * (width + dtype.itemsize if kv_cache else width * dtype.itemsize)


class ImageKV(NamedTuple):
    """Keys and values of one picture, shared by all layers (they have one cross-attention between them)."""

    k: Tensor  # [B, H, N, D]
    v: Tensor  # [B, H, N, D]
    mask: Tensor  # [1, N], 0 for entries that hold a token of the picture, -inf for the others


class SelfAttention(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.in_proj = nn.Linear(config.dim, 3 * config.dim, bias=False)
        self.out_proj = nn.Linear(config.dim, config.dim, bias=False)
        store_as_one(self, "in_proj_weight", {"in_proj.weight": 3 * config.dim})

    def forward(self, x: Tensor, window: Window, at: Position) -> Tensor:  # [B, dim] -> the same
        qkv = self.in_proj(x).unflatten(-1, (3, self.num_heads, 1, -1))  # [B, 3, H, 1, D]
        qkv = rotate(qkv, at.cos, at.sin)
        k, v = window.put(at.slot, qkv.narrow(1, 1, 2))
        y = F.scaled_dot_product_attention(qkv.select(1, 0), k, v, attn_mask=at.mask)  # [B, H, 1, D]
        out: Tensor = self.out_proj(y.flatten(1))
        return out


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

    def forward(self, x: Tensor, image: ImageKV) -> Tensor:  # [B, dim] -> the same
        q = self.q_proj(x).unflatten(-1, (self.num_heads, 1, -1))  # [B, H, 1, D]
        y = F.scaled_dot_product_attention(q, image.k, image.v, attn_mask=image.mask)
        out: Tensor = self.out_proj(y.flatten(1))
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
        x = x + self.self_attn(self.norm1(x), window, at)
        gate = None
        if image is not None:
            y = shared(self.norm_cross(x), image)
            gate = self.cross_attention.gate(y)
            x = torch.addcmul(x, y, gate)
        return x + self.gating(self.norm2(x)), gate


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
        return x, torch.stack(gates, dim=1).float().mean(-1)


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

    def embed(self, tokens: Tensor) -> Tensor:
        """Sum [..., dim] of the embeddings of one column of tokens [..., 1 + n_q]; -1 (no token) adds nothing."""
        absent = tokens == -1
        tables = (self.llm.text_emb, *self.audio_emb)
        ids = tokens.masked_fill(absent, 0).unbind(-1)
        rows = [look_up(table, i) for i, table in zip(ids, tables, strict=True)]
        out = torch.stack(rows, dim=-2).masked_fill(absent[..., None], 0).sum(-2)
        return out.to(self.llm.out_norm.alpha.dtype)

    def temporal_step(
        self, tokens: Tensor, window: Window, at: Position, image: ImageKV | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One step of the temporal transformer.

        ``tokens`` [B, 1 + n_q] int64 (-1: no token); returns the hidden state [B, dim] (after out_norm),
        the text logits [B, text_card] and the mean gate of every layer [B, layers] (zeros without a picture).
        """
        x, gates = self.llm.transformer(self.embed(tokens), window, at, image)
        hidden = self.llm.out_norm(x)
        return hidden, self.llm.text_linear(hidden), gates

    def depformer_step(
        self, codebook: int, hidden: Tensor, previous: Tensor, kv: list[Tensor | None]
    ) -> Tensor:
        """Logits [B, audio_card] of one codebook of this frame.

        ``previous`` [B] int64 is the text token for codebook 0 and the previous codebook's token after that;
        ``kv`` holds, for each layer, the keys and values of this frame's earlier codebooks (None: there are
        none), and gets those of this one.
        """
        embedding = self.depformer_emb[codebook - 1] if codebook else self.depformer_text_emb
        x = self.depformer_in[codebook](hidden) + look_up(embedding, previous).to(hidden.dtype)
        for i, layer in enumerate(self.depformer.layers):
            x, kv[i] = layer(x, codebook, kv[i])
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
