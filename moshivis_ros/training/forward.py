"""The MoshiVis network on whole sequences, as teacher-forced training needs it.

The same weights as the streaming step of `model.stream` and the same numbers; only all frames, and all codebooks of a
frame, at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.kernels.attention import rotate
from moshivis_ros.model.layers import rotary, rotary_frequencies
from moshivis_ros.model.lm import Layer, MoshiVis, SharedCrossAttention


class Sight(NamedTuple):
    """The pictures of a batch: keys and values, and which of them may be seen when."""

    k: Tensor  # [B, H, N, D]
    v: Tensor  # [B, H, N, D]
    mask: Tensor | None  # [B, 1, T, N] bool; None: all of them, always
    on: Tensor  # [B, T, 1] float, 0 where there is no picture
    about: Tensor | None = None  # [B, T, N] float, 1 for the tokens of what is being talked about


class Temporal(NamedTuple):
    hidden: Tensor  # [B, T, dim]
    middle: Tensor  # [B, T, dim], after half of the layers
    text_logits: Tensor  # [B, T, text_card]
    gates: Tensor  # [B, layers, T], mean gate of every layer, 0 without a picture
    gaze: Tensor  # [B, layers, T], log of the share of a head's look that is on what is talked about, mean of the heads


def columns(tokens: Tensor, config: ModelConfig) -> Tensor:
    """What the network reads when it is to say ``tokens`` [B, 1 + n_q, T] (aligned streams, -1: no token).

    Every stream is delayed by its own delay and by one frame, and starts with its initial token.
    """
    delays = torch.tensor(config.delays, device=tokens.device)
    initial = torch.full((1 + config.n_q,), config.audio_card, device=tokens.device)
    initial[0] = config.text_card
    return _shift(tokens, delays + 1, initial)


def targets(tokens: Tensor, config: ModelConfig) -> Tensor:
    """What the network shall choose at every step: [B, 1 + dep_q, T], -1 where a delayed stream has nothing yet."""
    own = 1 + config.dep_q
    delays = torch.tensor(config.delays[:own], device=tokens.device)
    return _shift(tokens[:, :own], delays, torch.full((own,), -1, device=tokens.device))


def _shift(tokens: Tensor, delays: Tensor, fill: Tensor) -> Tensor:
    time = torch.arange(tokens.shape[2], device=tokens.device)[None] - delays[:, None]  # [K, T]
    shifted = tokens.gather(2, time.clamp(min=0).expand(tokens.shape))
    return torch.where(time < 0, fill[:, None], shifted)


def temporal(model: MoshiVis, read: Tensor, sight: Sight | None, lean: bool = False) -> Temporal:
    """The temporal transformer on ``read`` [B, 1 + n_q, T] (see columns).

    ``lean``: for large models. Nothing inside a layer is kept for the way back, where it is computed again; torch's own
    attention; the gaze is not computed.
    """
    config, llm = model.config, model.llm
    x = llm.text_emb(read[:, 0])
    for i, embedding in enumerate(model.audio_emb, start=1):
        x = x + embedding(read[:, i])
    steps = torch.arange(x.shape[1], device=x.device)
    frequencies = rotary_frequencies(config.dim // config.num_heads, config.max_period).to(x.device)
    angles = rotary(steps[:, None], frequencies)
    age = steps[:, None] - steps
    window = (age >= 0) & (age < config.context)
    shared, gates, gazes = llm.transformer.shared_cross_attention, [], []
    for index, layer in enumerate(llm.transformer.layers):
        if index == config.num_layers // 2:
            middle = x
        arguments: tuple[Any, ...] = (layer, x, angles, window, shared, sight, lean)
        if lean:
            x, gate, gaze = checkpoint(_layer, *arguments, use_reentrant=False)
        else:
            x, gate, gaze = _layer(*arguments)
        gates.append(gate)
        gazes.append(gaze)
    hidden = llm.out_norm(x)
    return Temporal(hidden, middle, llm.text_linear(hidden), torch.stack(gates, 1), torch.stack(gazes, 1))


def _layer(
    layer: Layer,
    x: Tensor,
    angles: tuple[Tensor, Tensor],
    window: Tensor,
    shared: SharedCrossAttention,
    sight: Sight | None,
    lean: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    attention = layer.self_attn
    qkv = attention.in_proj(layer.norm1(x)).unflatten(-1, (3, shared.num_heads, -1))
    q, k, v = qkv.permute(2, 0, 3, 1, 4)  # [B, H, T, D]
    q, k = rotate(q, *angles), rotate(k, *angles)
    y = F.scaled_dot_product_attention(q, k, v, window) if lean else _attend(q, k, v, window)[0]
    x = x + attention.out_proj(y.transpose(1, 2).flatten(2))
    gate = gaze = x.new_zeros(x.shape[:2])
    if sight is not None:
        q = shared.q_proj(layer.norm_cross(x)).unflatten(-1, (shared.num_heads, -1))
        q = q.transpose(1, 2)
        if lean:
            y = F.scaled_dot_product_attention(q, sight.k, sight.v, sight.mask)
        else:
            y, shares = _attend(q, sight.k, sight.v, sight.mask)
        if sight.about is not None and not lean:
            gaze = ((shares * sight.about[:, None]).sum(-1) + 1e-6).log().mean(1)
        y = shared.out_proj(y.transpose(1, 2).flatten(2))
        open_by = layer.cross_attention.gate(y) * sight.on
        x = x + y * open_by
        gate = open_by.float().mean(-1)
    return x + layer.gating(layer.norm2(x)), gate, gaze


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Attention and its shares, as plain operations: torch's fused one is slow backwards on a CPU (a third of a step)."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    shares = scores.softmax(-1)
    return shares.to(v.dtype) @ v, shares


def kind_loss(text_logits: Tensor, wanted: Tensor, config: ModelConfig) -> Tensor:
    """Cross-entropy [B, T] of the kind of token that is ``wanted`` [B, T]: padding, end of padding, or any piece."""
    log = text_logits.log_softmax(-1)
    silent = [config.padding_token_id, config.end_of_text_padding_id]
    piece = torch.ones(log.shape[-1], dtype=torch.bool, device=log.device)
    piece[silent] = False
    of_kind = torch.stack((*log[..., silent].unbind(-1), log[..., piece].logsumexp(-1)), -1)
    kind = torch.full_like(wanted, len(silent))
    for number, token in enumerate(silent):
        kind[wanted == token] = number
    return -of_kind.gather(-1, kind[..., None])[..., 0]


def audio_logits(
    model: MoshiVis, hidden: Tensor, text: Tensor, audio: Tensor, lean: bool = False
) -> Tensor:
    """The depformer on chosen frames: logits [M, dep_q, audio_card].

    ``hidden`` [M, dim] of the temporal transformer, ``text`` [M] and ``audio`` [M, dep_q] the tokens of those frames;
    ``lean`` as in temporal.
    """
    inputs = []
    for codebook, project in enumerate(model.depformer_in):
        emb = model.depformer_emb[codebook - 1] if codebook else model.depformer_text_emb
        inputs.append(project(hidden) + emb(audio[:, codebook - 1] if codebook else text))
    x = torch.stack(inputs)  # [dep_q, M, d]
    for layer in model.depformer.layers:
        if lean:
            x = checkpoint(_depformer_layer, layer, x, model.config.depformer_num_heads, use_reentrant=False)
        else:
            x = _depformer_layer(layer, x, model.config.depformer_num_heads)
    return _each(model.audio_linears, x).transpose(0, 1)


def _depformer_layer(layer: Any, x: Tensor, heads: int) -> Tensor:
    attention = layer.self_attn
    qkv = _each(attention.in_proj, layer.norm1(x)).unflatten(-1, (3, heads, -1))
    q, k, v = qkv.permute(2, 1, 3, 0, 4)  # [M, H, dep_q, D]
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True).permute(2, 0, 1, 3).flatten(2)
    x = x + _each(attention.out_proj, y)
    a, b = _each([part.linear_in for part in layer.gating], layer.norm2(x)).chunk(2, -1)
    out: Tensor = x + _each([part.linear_out for part in layer.gating], F.silu(a) * b)
    return out


def _each(linears: Iterable[Any], x: Tensor) -> Tensor:
    """Every codebook [dep_q, M, in] through its own linear layer: [dep_q, M, out]."""
    return torch.bmm(x, torch.stack([linear.weight for linear in linears]).transpose(1, 2))
