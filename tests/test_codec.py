"""The Mimi codec: streaming, resettable, read from the released layout, and quiet about it."""

from __future__ import annotations

import copy
import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from moshivis_ros.errors import CheckpointError, ConfigError, MissingDependencyError
from moshivis_ros.model.codec import Codec, build_mimi, released_layout
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.init import init_checkpoint

FRAMES = 20
MIMI = "tokenizer-e351c8d8-checkpoint125.safetensors"

# Names and shapes of the released Mimi file, a few of each kind.
RELEASED_MIMI = {
    "encoder.model.0.conv.conv.weight": [64, 1, 7],
    "encoder.model.1.block.1.conv.conv.weight": [32, 64, 3],
    "encoder.model.14.conv.conv.weight": [512, 1024, 3],
    "encoder_transformer.transformer.layers.7.self_attn.in_proj_weight": [1536, 512],
    "encoder_transformer.transformer.layers.7.self_attn.out_proj.weight": [512, 512],
    "encoder_transformer.transformer.layers.7.linear1.weight": [2048, 512],
    "encoder_transformer.transformer.layers.7.norm1.weight": [512],
    "encoder_transformer.transformer.layers.7.layer_scale_1.scale": [512],
    "downsample.conv.conv.conv.weight": [512, 512, 4],
    "quantizer.rvq_first.input_proj.weight": [256, 512, 1],
    "quantizer.rvq_first.vq.layers.0._codebook._initialized": [1],
    "quantizer.rvq_first.vq.layers.0._codebook.cluster_usage": [2048],
    "quantizer.rvq_first.vq.layers.0._codebook.embedding_sum": [2048, 256],
    "quantizer.rvq_rest.vq.layers.30._codebook.embedding_sum": [2048, 256],
    "quantizer.rvq_rest.output_proj.weight": [512, 256, 1],
    "upsample.convtr.convtr.convtr.weight": [512, 1, 4],
    "decoder_transformer.transformer.layers.0.self_attn.in_proj_weight": [1536, 512],
    "decoder.model.2.convtr.convtr.weight": [1024, 512, 16],
    "decoder.model.14.conv.conv.bias": [1],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return init_checkpoint(tmp_path_factory.mktemp("codec") / "tiny")


@pytest.fixture(scope="module")
def config(folder: Path) -> ModelConfig:
    return ModelConfig.load(folder)


def sound(batch: int = 1) -> Tensor:
    """[FRAMES, batch, 1, 1920] of noise, louder from frame to frame."""
    generator = torch.Generator().manual_seed(3)
    loudness = torch.linspace(0, 0.5, FRAMES)[:, None, None, None]
    return loudness * torch.randn(FRAMES, batch, 1, 1920, generator=generator)


def roundtrip(codec: Codec, frames: Tensor) -> tuple[Tensor, Tensor]:
    codes = [codec.encode(frame) for frame in frames]
    return torch.stack(codes), torch.stack([codec.decode(c) for c in codes])


def test_shapes_and_no_gradient(folder: Path, config: ModelConfig) -> None:
    codec = Codec.load(folder, config, "cpu", batch_size=2)
    codes, pcm = roundtrip(codec, sound(batch=2))
    assert codes.shape == (FRAMES, 2, 8) and codes.dtype == torch.int64
    assert pcm.shape == (FRAMES, 2, 1, 1920) and pcm.dtype == torch.float32
    assert pcm.isfinite().all()
    assert codes.min() >= 0 and codes.max() < config.audio_card


def test_what_it_hears_changes_the_codes(folder: Path, config: ModelConfig) -> None:
    codes, _ = roundtrip(Codec.load(folder, config, "cpu"), sound())
    assert all(codes[:, 0, k].unique().numel() > 1 for k in range(8))


def test_streaming_remembers_and_reset_forgets(folder: Path, config: ModelConfig) -> None:
    codec = Codec.load(folder, config, "cpu")
    first, again = roundtrip(codec, sound()), roundtrip(codec, sound())
    assert not torch.equal(first[0], again[0]) and not torch.equal(first[1], again[1])
    codec.reset()
    after = roundtrip(codec, sound())
    assert torch.equal(first[0], after[0]) and torch.equal(first[1], after[1])


def test_recorded_equals_plain(folder: Path, config: ModelConfig) -> None:
    """To the last bit, past the end of the attention's window and after resets, another first frame each time."""
    mimi = copy.deepcopy(config.mimi)
    assert mimi is not None
    mimi["transformer"]["context"] = 8
    config = dataclasses.replace(config, mimi=mimi)
    plain, recorded = (Codec.load(folder, config, "cpu") for _ in range(2))
    recorded.record()
    frames = sound()
    for part in (frames, frames[5:], frames.flip(0)):
        for a, b in zip(roundtrip(plain, part), roundtrip(recorded, part), strict=True):
            assert torch.equal(a, b)
        for codec in (plain, recorded):
            codec.reset()


def test_reads_the_file_as_moshi_itself_does(folder: Path, config: ModelConfig) -> None:
    from moshi.models.loaders import get_mimi

    theirs = Codec(get_mimi(folder / MIMI, config.mimi, num_codebooks=8))
    ours = Codec.load(folder, config, "cpu")
    for a, b in zip(roundtrip(theirs, sound()), roundtrip(ours, sound()), strict=True):
        assert torch.equal(a, b)
        assert not a.requires_grad, "a network that could be trained records nothing here"


def test_full_size_network_has_the_released_names() -> None:
    with torch.device("meta"):
        mimi = build_mimi(ModelConfig.preset("moshika-vis"))
    assert (mimi.total_codebooks, mimi.num_codebooks) == (32, 8)
    layout = {name: list(t.shape) for name, t in released_layout(mimi.state_dict()).items()}
    assert {name: layout.get(name) for name in RELEASED_MIMI} == RELEASED_MIMI
    assert not [name for name in layout if "in_projs" in name or "out_projs" in name]


def test_prints_nothing(folder: Path) -> None:
    program = """
import sys, torch
from moshivis_ros.model.codec import Codec
from moshivis_ros.model.config import ModelConfig
codec = Codec.load(sys.argv[1], ModelConfig.load(sys.argv[1]), "cpu")
codec.decode(codec.encode(torch.zeros(1, 1, 1920)))
"""
    done = subprocess.run([sys.executable, "-c", program, folder], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_moshi_compiles_nothing_on_any_device() -> None:
    from moshi.utils import compile as moshi_compile

    class Mimi:
        disabled: list[bool] = []

        def streaming_forever(self, batch_size: int) -> None:
            pass

        def encode(self, x: Tensor) -> Tensor:
            self.disabled.append(moshi_compile._compile_disabled)
            return torch.zeros(1, 8, 1)

        decode = encode

    codec = Codec(Mimi())
    codec.decode(codec.encode(torch.zeros(1, 1, 1920)))
    assert Mimi.disabled == [True, True]


def test_wrong_tensors_are_named(folder: Path, config: ModelConfig, tmp_path: Path) -> None:
    tensors = load_file(folder / MIMI)
    tensors["decoder.model.0.conv.conv.weight"] = torch.ones(1, 2, 3)
    del tensors["quantizer.rvq_first.vq.layers.0._codebook.embedding_sum"]
    tensors["surprise"] = torch.ones(1)
    save_file(tensors, tmp_path / MIMI)
    config.save(tmp_path)
    with pytest.raises(CheckpointError) as error:
        Codec.load(tmp_path, config, "cpu")
    for part in (
        "decoder.model.0.conv.conv.weight has the shape [1, 2, 3], [64, 32, 7] is expected",
        "quantizer.rvq_first.vq.layers.0._codebook.embedding_sum [64, 16] is missing",
        "surprise [1] is unexpected",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"audio_card": 128}, "and 64 codes; the LM needs .* 128 codes .audio_card."),
        ({"mimi": {"seanet": {}}}, "section mimi of config.yaml describes no Mimi codec"),
        ({"dep_q": 10, "n_q": 20, "delays": (0,) * 21}, "describes no Mimi codec of 10 codebooks"),
    ],
)
def test_a_codec_that_does_not_fit_the_lm_is_refused(
    folder: Path, config: ModelConfig, change: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        Codec.load(folder, dataclasses.replace(config, **change), "cpu")


def test_a_missing_moshi_is_named(folder: Path, config: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "moshi.models.loaders", None)
    with pytest.raises(MissingDependencyError, match="pip install --no-deps moshi==0.2.13"):
        Codec.load(folder, config, "cpu")
