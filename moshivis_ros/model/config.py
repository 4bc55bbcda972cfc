"""Sizes and settings of a MoshiVis checkpoint.

The keys of ``config.yaml`` are those of the reference's yaml and ``MoshiConfig`` (kyuteye_pt), flat, plus the
sections ``siglip:`` and ``mimi:``. A folder without the file is the released model.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import yaml

from moshivis_ros.errors import ConfigError
from moshivis_ros.model import schema
from moshivis_ros.model.schema import Range

Size: TypeAlias = Annotated[int, Range(1, 1_000_000)]
Layers: TypeAlias = Annotated[int, Range(1, 1000)]
Streams: TypeAlias = Annotated[int, Range(1, 100)]
Count: TypeAlias = Annotated[int, Range(0, 1_000_000)]
Positive: TypeAlias = Annotated[float, Range(1e-12, 1e12)]
Share: TypeAlias = Annotated[float, Range(0, 1)]
Temperature: TypeAlias = Annotated[float, Range(0, 10)]
File: TypeAlias = Annotated[str, Range(1, 255)]
NormForm: TypeAlias = Literal["rms_norm", "rms_norm_f32", "real_rms_norm", "real_rms_norm_f32"]

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

    hidden_size: Size = 1152
    intermediate_size: Size = 4304
    num_hidden_layers: Layers = 27
    num_attention_heads: Size = 16
    image_size: Size = 448
    patch_size: Size = 14
    num_channels: Size = 3
    layer_norm_eps: Positive = 1e-6
    hidden_act: str = "gelu_pytorch_tanh"
    vision_use_head: bool = False

    def __post_init__(self) -> None:
        _refuse(schema.problems(self, "siglip."))
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
    dim: Size = 4096
    num_layers: Layers = 32
    num_heads: Size = 32
    hidden_scale: Positive = 4.125
    context: Size = 3000  # frames of the attention window
    max_period: Positive = 10000.0
    # tokens: 1 text stream, dep_q own audio streams, n_q - dep_q user audio streams
    text_card: Size = 32000
    audio_card: Size = 2048
    n_q: Streams = 16
    dep_q: Streams = 8
    delays: tuple[Count, ...] = (0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1)  # frames, per stream
    padding_token_id: Count = 3
    end_of_text_padding_id: Count = 0
    # depformer
    depformer_dim: Size = 1024
    depformer_dim_feedforward: Size = 4224
    depformer_num_heads: Size = 16
    depformer_num_layers: Layers = 6
    # norm forms: "real_" divides by the root mean square, without it by the standard deviation (see
    # layers.RMSNorm)
    norm: NormForm = "rms_norm_f32"  # depformer
    norm_lm: NormForm = "real_rms_norm_f32"
    norm_xa: NormForm = "rms_norm"
    # image
    image_size: Size = 448  # pixels of the square that a picture is resized to
    siglip: SiglipConfig = field(default_factory=SiglipConfig)
    # what the gate (mean of the last 10 layers) reads when the model looks away and when it looks
    gate_low: Share = 0.005
    gate_high: Share = 0.021
    # files of the checkpoint folder
    model: File = "model.safetensors"
    mimi_codec: File = "tokenizer-e351c8d8-checkpoint125.safetensors"
    text_tokenizer: File = "tokenizer_spm_32k_3.model"
    mimi: dict[str, Any] | None = None  # configuration for moshi's get_mimi; None: the released Mimi
    quantize: str | None = None  # how the file holds the linear layers of a step: int8 or int4
    trained: bool = True  # False: random weights, good for trying the plumbing only
    about: str = ""  # what the model can talk about, for its users
    says: str = ""  # the words that it has learned to say, small letters, with spaces between; empty: any
    # randomness that suits it, of words and voice; 0: always the most likely
    text_temperature: Temperature = 0.7
    audio_temperature: Temperature = 0.8

    def __post_init__(self) -> None:
        _refuse([*schema.problems(self), *schema.unlike(self.mimi, _TINY_MIMI, "mimi.")])
        _check_divisible("dim", self.dim, "num_heads", self.num_heads)
        _check_divisible("depformer_dim", self.depformer_dim, "depformer_num_heads", self.depformer_num_heads)
        if (self.dim // self.num_heads) % 2:
            raise ConfigError(
                f"dim / num_heads is {self.dim // self.num_heads}: rotary embedding needs an even number"
            )
        if len(self.delays) != self.n_q + 1:
            raise ConfigError(f"delays must hold n_q + 1 = {self.n_q + 1} numbers, not {len(self.delays)}")
        if not 0 < self.dep_q < self.n_q:
            raise ConfigError(f"dep_q ({self.dep_q}) must be between 1 and n_q - 1 ({self.n_q - 1})")
        if self.gate_low >= self.gate_high:
            raise ConfigError(f"gate_low ({self.gate_low}) must be below gate_high ({self.gate_high})")
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

        Raises ConfigError, which names every key that is unknown or whose value is of a wrong type or out of range, for a
        value of another network, and for text that is not yaml.
        """
        path = Path(folder) / "config.yaml"
        if not path.exists():
            return cls.preset("moshika-vis")
        try:
            raw = yaml.safe_load(path.read_text(encoding="utf-8"))
            if not isinstance(raw, dict):
                raise ConfigError(f"a yaml mapping is expected, found {schema.short(raw)}")
            return cls._from_dict(raw)
        except RecursionError as error:
            raise ConfigError(f"{path}: nested too deeply") from error
        except (ValueError, OSError, yaml.YAMLError) as error:
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
        known = {f.name for f in dataclasses.fields(cls)}
        _refuse(_unknown(raw, known | _FIXED.keys() | _IGNORED | {"depformer_context"}, ""))
        _refuse(
            f"{key}: {schema.short(raw[key])} is not supported, only {value!r}"
            for key, value in _FIXED.items()
            if raw.get(key, value) != value
        )
        values = {key: value for key, value in raw.items() if key in known}
        if isinstance(siglip := values.get("siglip"), dict):
            _refuse(_unknown(siglip, {f.name for f in dataclasses.fields(SiglipConfig)}, "siglip."))
            values["siglip"] = SiglipConfig(**siglip)
        if isinstance(delays := values.get("delays"), list):
            values["delays"] = tuple(delays)
        config = cls(**values)
        window = raw.get("depformer_context", config.dep_q)
        if not isinstance(window, int) or window < config.dep_q:
            raise ConfigError(
                f"depformer_context: {schema.short(window)} is less than dep_q, which is not supported"
            )
        return config


def _refuse(problems: Iterable[str]) -> None:
    lines = list(problems)
    if lines:
        raise ConfigError(lines[0] if len(lines) == 1 else "".join(f"\n  {line}" for line in lines))


def _unknown(given: Iterable[Any], known: Collection[str], prefix: str) -> Iterator[str]:
    for key in given:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            yield f"unknown key {prefix + str(key)!r}" + (f", did you mean {close[0]!r}?" if close else "")


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
        "max_period": 10000.0,
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
