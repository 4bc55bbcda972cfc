"""Choosing tokens from logits with settings that are tensors, so that nothing is captured or compiled
again.
"""

from __future__ import annotations

import torch
from torch import Tensor

from moshivis_ros.model.kernels.form import fused
from moshivis_ros.sampling import MAX_TOP_K, Sampling

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
