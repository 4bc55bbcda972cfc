"""The reference (a checkout of kyutai-labs/moshivis) with the weights of ours, to be measured in turns."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import moshivis_ros.model  # noqa: F401  before torch: it says how to install torch when it is missing

# isort: split
import torch

from moshivis_ros.errors import ConfigError, MissingDependencyError
from moshivis_ros.model.lm import MoshiVis


def load_reference(checkout: str, model: MoshiVis, dtype: torch.dtype) -> Any:
    """The reference's generator (kyuteye_pt) with the same weights, greedy; in float32 on a CPU, where that is
    the fastest it can do.
    """
    folder = Path(checkout).expanduser() / "kyuteye_pt"
    if not folder.is_dir():
        raise ConfigError(
            f"{checkout} holds no kyuteye_pt: git clone https://github.com/kyutai-labs/moshivis"
        )
    config = model.config
    if config.quantize:
        raise ConfigError("the reference cannot read quantised weights: give the original, and --quantize")
    sys.path.insert(0, str(folder))
    try:
        from kyuteye.models.moshivis import MoshiVis as Reference
        from kyuteye.models.moshivis import MoshiVisGen
    except ImportError as error:
        raise MissingDependencyError(f"the reference cannot be run: {error}") from error
    same = (
        "hidden_scale norm n_q dep_q audio_card depformer_dim depformer_dim_feedforward depformer_num_layers "
        "depformer_num_heads text_card padding_token_id dim num_heads num_layers context max_period"
    )
    weight = model.llm.text_emb.weight
    with weight.device:
        reference = Reference(
            **{name: getattr(config, name) for name in same.split()},
            delays=list(config.delays),
            depformer=True,
            depformer_multi_linear=True,
            depformer_pos_emb="none",
            depformer_weights_per_step=True,
            cross_attention=True,
            xa_gating="sigmoid",
            xa_conditional_gating=True,
            xa_start="start",
            xa_end="end",
            dtype=dtype,
        )
    weights = {k: v for k, v in model.state_dict().items() if not k.startswith("image_prefix.")}
    missing, unexpected = reference.load_state_dict(weights, strict=False)
    wrong = [name for name in missing if "cross_attention.mha" not in name] + unexpected
    if wrong:
        raise ConfigError(f"the checkout's network is another one: {', '.join(wrong[:3])}")
    generator = MoshiVisGen(reference.eval().to(dtype), use_sampling=False)
    generator.streaming_forever(1)  # type: ignore[no-untyped-call]
    return generator
