"""Choosing tokens from logits with settings that are tensors, so that nothing is captured or compiled
again.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from moshivis_ros.errors import ConfigError
from moshivis_ros.model.kernels.form import fused

MAX_TOP_K = 250


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. A temperature of 0 takes the most likely token; None: what suits the checkpoint (its
    config.yaml).

    The top-k are those of the reference's server and web client.
    """

    text_temperature: float | None = None
    text_top_k: int = 25
    audio_temperature: float | None = None
    audio_top_k: int = MAX_TOP_K

    def __post_init__(self) -> None:
        for name in ("text_temperature", "audio_temperature"):
            if (value := getattr(self, name)) is not None and not 0 <= value <= 10:
                raise ConfigError(f"{name} must be between 0 (greedy) and 10, not {value}")
        for name in ("text_top_k", "audio_top_k"):
            if not 1 <= getattr(self, name) <= MAX_TOP_K:
                raise ConfigError(f"{name} must be between 1 and {MAX_TOP_K}, not {getattr(self, name)}")


GREEDY = Sampling(text_temperature=0.0, audio_temperature=0.0)


def sample(logits: Tensor, temperature: Tensor, race: Tensor) -> Tensor:
    """One token [B] int64 per row of ``logits`` [B, card].

    ``race`` [B, MAX_TOP_K] is the head start of each rank: minus the logarithm of noise from the exponential
    distribution, and -inf beyond top-k. The argmax of logits / temperature + race is a draw from the softmax
    of the first over the top-k tokens. Temperature 0 is argmax (the first of equals).
    """
    if fused(logits):
        from moshivis_ros.model.kernels import triton_tokens

        return triton_tokens.sample(logits, temperature, race)
    logits = logits.float()
    values, ids = logits.topk(min(MAX_TOP_K, logits.shape[-1]))  # sorted: the index is the rank
    winner = (values / temperature + race[:, : values.shape[-1]]).argmax(-1, keepdim=True)
    return torch.where(temperature > 0, ids.gather(-1, winner)[:, 0], logits.argmax(-1))
