"""Sizes of network that are measured with random weights."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

from moshivis_ros.model.config import ModelConfig, SiglipConfig

TINY = ModelConfig.preset("tiny")
_MIMI: dict[str, Any] = copy.deepcopy(TINY.mimi or {})
_MIMI["seanet"] |= {"dimension": 160, "n_filters": 12}
_MIMI["transformer"] |= {"d_model": 160, "num_heads": 4, "num_layers": 2, "dim_feedforward": 480}
_MIMI["transformer"] |= {"input_dimension": 160, "output_dimensions": [160]}
_MIMI["quantizer"] |= {"dimension": 64, "bins": 512, "input_dimension": 160, "output_dimension": 160}
SIZES = {
    "full": ModelConfig.preset("moshika-vis"),
    # 14 M parameters, 256 image tokens: what runs on one core of a robot's CPU
    "builtin": dataclasses.replace(
        TINY,
        dim=256,
        num_layers=6,
        num_heads=8,
        text_card=1000,
        audio_card=512,
        depformer_dim=128,
        depformer_dim_feedforward=528,
        depformer_num_heads=4,
        depformer_num_layers=3,
        image_size=224,
        siglip=SiglipConfig(
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=224,
        ),
        mimi=_MIMI,
    ),
    "tiny": TINY,
}
