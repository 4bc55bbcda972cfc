"""Sizes and settings of a MoshiVis checkpoint.

The keys of ``config.yaml`` are those of the reference's yaml and ``MoshiConfig`` (kyuteye_pt), flat, plus the
sections ``siglip:`` and ``mimi:``. A folder without the file is the released model.
"""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from moshivis_ros.errors import ConfigError

NORM_FORMS = ("rms_norm", "rms_norm_f32", "real_rms_norm", "real_rms_norm_f32")

# Keys of the reference that this implementation supports with one value only (any other would be another
# network).
_FIXED: dict[str, Any] = {
    "activation": "silu",
    "add_boi_eoi": False,
    "align_img_and_speech_tokens_dim": True,
    "causal": True,
    "depformer": True,
    "depformer_activation": "silu",
    "depformer_gating": True,
    "depformer_multi_linear": True,
    "depformer_pos_emb": "none",
    "depformer_weights_per_step": True,
    "gating": True,
    "interpolation": "bicubic",
    "norm_extra": None,
    "num_crossattended_tokens": -1,
    "num_extra_tokens": 0,
    "positional_embedding": "rope",
    "xa_conditional_gating": True,
    "xa_delay": 0,
    "xa_dim": None,
    "xa_end": "end",
    "xa_gate_shared": False,
    "xa_gating": "sigmoid",
    "xa_layers": [],
    "xa_shared": True,
    "xa_start": "start",
    "xa_step": 1,
}
# Keys that say where the file came from, or that nothing reads when the network runs.
_IGNORED = {"encoder_name", "golden", "hf_repo"}


@dataclass(frozen=True)
class SiglipConfig:
    """Sizes of the SigLIP image encoder; the defaults are those of the released model."""

    hidden_size: int = 1152
    intermediate_size: int = 4304
    num_hidden_layers: int = 27
    num_attention_heads: int = 16
    image_size: int = 448
    patch_size: int = 14
    num_channels: int = 3
    layer_norm_eps: float = 1e-6
    hidden_act: str = "gelu_pytorch_tanh"
    vision_use_head: bool = False

    def __post_init__(self) -> None:
        if self.hidden_act != "gelu_pytorch_tanh" or self.vision_use_head:
            raise ConfigError(
                "siglip: only hidden_act gelu_pytorch_tanh and vision_use_head false are supported"
            )
        _check_divisible(
            "siglip.hidden_size", self.hidden_size, "siglip.num_attention_heads", self.num_attention_heads
        )
        if self.image_size < self.patch_size:
            raise ConfigError(
                f"siglip.image_size {self.image_size} is smaller than a patch ({self.patch_size})"
            )

    @property
    def grid(self) -> int:
        """Patches along one side of a picture of the native size."""
        return self.image_size // self.patch_size


@dataclass(frozen=True)
class ModelConfig:
    """A MoshiVis network; the defaults are the released model (kyutai/moshika-vis-pytorch-bf16)."""

    # temporal transformer
    dim: int = 4096
    num_layers: int = 32
    num_heads: int = 32
    hidden_scale: float = 4.125
    context: int = 3000  # frames of the attention window
    max_period: float = 10000.0
    # tokens: 1 text stream, dep_q own audio streams, n_q - dep_q user audio streams
    text_card: int = 32000
    audio_card: int = 2048
    n_q: int = 16
    dep_q: int = 8
    delays: tuple[int, ...] = (0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1)  # frames, per stream
    padding_token_id: int = 3
    end_of_text_padding_id: int = 0
    # depformer
    depformer_dim: int = 1024
    depformer_dim_feedforward: int = 4224
    depformer_num_heads: int = 16
    depformer_num_layers: int = 6
    # norm forms: "real_" divides by the root mean square, without it by the standard deviation (see
    # layers.RMSNorm)
    norm: str = "rms_norm_f32"  # depformer
    norm_lm: str = "real_rms_norm_f32"
    norm_xa: str = "rms_norm"
    # image
    image_size: int = 448  # pixels of the square that a picture is resized to
    siglip: SiglipConfig = field(default_factory=SiglipConfig)
    # what the gate (mean of the last 10 layers) reads when the model looks away and when it looks
    gate_low: float = 0.005
    gate_high: float = 0.021
    # files of the checkpoint folder
    model: str = "model.safetensors"
    mimi_codec: str = "tokenizer-e351c8d8-checkpoint125.safetensors"
    text_tokenizer: str = "tokenizer_spm_32k_3.model"
    mimi: dict[str, Any] | None = None  # configuration for moshi's get_mimi; None: the released Mimi
    quantize: str | None = None  # how the file holds the linear layers of a step: int8 or int4
    trained: bool = True  # False: random weights, good for trying the plumbing only
    about: str = ""  # what the model can talk about, for its users
    # randomness that suits it, of words and voice; 0: always the most likely
    text_temperature: float = 0.7
    audio_temperature: float = 0.8

    def __post_init__(self) -> None:
        _check_divisible("dim", self.dim, "num_heads", self.num_heads)
        _check_divisible("depformer_dim", self.depformer_dim, "depformer_num_heads", self.depformer_num_heads)
        if (self.dim // self.num_heads) % 2:
            raise ConfigError(
                f"dim / num_heads is {self.dim // self.num_heads}: rotary embedding needs an even number"
            )
        if len(self.delays) != self.n_q + 1 or min(self.delays) < 0:
            raise ConfigError(f"delays must hold n_q + 1 = {self.n_q + 1} numbers >= 0, not {self.delays}")
        if not 0 < self.dep_q < self.n_q:
            raise ConfigError(f"dep_q ({self.dep_q}) must be between 1 and n_q - 1 ({self.n_q - 1})")
        for name in ("norm", "norm_lm", "norm_xa"):
            if getattr(self, name) not in NORM_FORMS:
                raise ConfigError(f"{name} is {getattr(self, name)!r}: choose one of {', '.join(NORM_FORMS)}")
        if not 0 <= self.gate_low < self.gate_high <= 1:
            raise ConfigError(
                f"gate_low ({self.gate_low}) must be below gate_high ({self.gate_high}), both in 0..1"
            )
        for name in ("text_temperature", "audio_temperature"):
            if not 0 <= getattr(self, name) <= 10:
                raise ConfigError(f"{name} must be between 0 (greedy) and 10, not {getattr(self, name)}")
        if self.image_size < self.siglip.patch_size:
            raise ConfigError(
                f"image_size {self.image_size} is smaller than a patch ({self.siglip.patch_size})"
            )

    @property
    def max_delay(self) -> int:
        """Largest delay of any stream, in frames."""
        return max(self.delays)

    @property
    def user_q(self) -> int:
        """Codebooks of the user's audio, read but not generated."""
        return self.n_q - self.dep_q

    def image_tokens(self, image_size: int | None = None) -> int:
        """Image tokens of a picture resized to ``image_size`` pixels (default: the configured size)."""
        return ((image_size or self.image_size) // self.siglip.patch_size) ** 2

    @classmethod
    def preset(cls, name: str) -> ModelConfig:
        """A named network: ``moshika-vis`` (released) or ``tiny`` (tests, and trying the plumbing)."""
        if name not in PRESETS:
            raise ConfigError(f"no preset {name!r}: choose one of {', '.join(PRESETS)}")
        return PRESETS[name]

    @classmethod
    def load(cls, folder: Path | str) -> ModelConfig:
        """Read ``folder/config.yaml``; without the file, the released model's configuration.

        Raises ConfigError for an unknown key, a value of another network, or text that is not yaml.
        """
        path = Path(folder) / "config.yaml"
        if not path.exists():
            return cls.preset("moshika-vis")
        try:
            raw = yaml.safe_load(path.read_text(encoding="utf-8"))
            if not isinstance(raw, dict):
                raise ConfigError("a yaml mapping is expected")
            return cls._from_dict(raw)
        except (ConfigError, TypeError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: {error}") from error

    def save(self, folder: Path | str) -> None:
        """Write ``folder/config.yaml``."""
        raw = dataclasses.asdict(self)
        raw["delays"] = list(self.delays)
        if self.mimi is None:
            del raw["mimi"]
        (Path(folder) / "config.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")

    @classmethod
    def _from_dict(cls, raw: dict[str, Any]) -> ModelConfig:
        own = {f.name for f in dataclasses.fields(cls)}
        values: dict[str, Any] = {}
        for key, value in raw.items():
            if key in own:
                values[key] = value
            elif key in _FIXED:
                if value != _FIXED[key]:
                    raise ConfigError(f"{key}: {value!r} is not supported, only {_FIXED[key]!r}")
            elif key == "depformer_context":
                if value < raw.get("dep_q", cls.dep_q):
                    raise ConfigError(
                        f"depformer_context: {value} is less than dep_q, which is not supported"
                    )
            elif key not in _IGNORED:
                close = difflib.get_close_matches(key, own | set(_FIXED), n=1)
                raise ConfigError(f"unknown key {key!r}" + (f", did you mean {close[0]!r}?" if close else ""))
        if "siglip" in values:
            values["siglip"] = SiglipConfig(**values["siglip"])
        if "delays" in values:
            values["delays"] = tuple(values["delays"])
        return cls(**values)


def _check_divisible(name: str, value: int, by_name: str, by: int) -> None:
    if by < 1 or value < 1 or value % by:
        raise ConfigError(f"{name} ({value}) must be a multiple of {by_name} ({by})")


_TINY_MIMI: dict[str, Any] = {
    "sample_rate": 24000,
    "channels": 1,
    "frame_rate": 12.5,
    "seanet": {
        "channels": 1,
        "dimension": 32,
        "causal": True,
        "n_filters": 4,
        "n_residual_layers": 1,
        "activation": "LeakyReLU",
        "activation_params": {"negative_slope": 0.2},
        "compress": 2,
        "dilation_base": 2,
        "disable_norm_outer_blocks": 0,
        "kernel_size": 7,
        "residual_kernel_size": 3,
        "last_kernel_size": 3,
        "norm": "none",
        "pad_mode": "constant",
        "ratios": [4, 5, 6, 8],
        "true_skip": True,
    },
    "transformer": {
        "d_model": 32,
        "num_heads": 2,
        "num_layers": 1,
        "causal": True,
        "layer_scale": 0.01,
        "context": 32,
        "conv_layout": True,
        "max_period": 10000,
        "gating": "none",
        "norm": "layer_norm",
        "positional_embedding": "rope",
        "dim_feedforward": 64,
        "input_dimension": 32,
        "output_dimensions": [32],
    },
    "quantizer": {"dimension": 16, "n_q": 8, "bins": 64, "input_dimension": 32, "output_dimension": 32},
}

PRESETS: dict[str, ModelConfig] = {
    "moshika-vis": ModelConfig(),
    "tiny": ModelConfig(
        dim=64,
        num_layers=3,
        num_heads=4,
        context=250,
        text_card=384,
        audio_card=64,
        depformer_dim=32,
        depformer_dim_feedforward=132,
        depformer_num_heads=2,
        depformer_num_layers=2,
        image_size=56,
        siglip=SiglipConfig(
            hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, image_size=56
        ),
        gate_low=0.0,
        gate_high=1.0,
        mimi=_TINY_MIMI,
        trained=False,
    ),
}
