"""Random checkpoints: complete, reproducible, and alive enough to try the whole path."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from moshivis_ros.errors import CheckpointError, ConfigError
from moshivis_ros.model.checkpoint import load_model
from moshivis_ros.model.codec import Codec
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.init import init_checkpoint
from moshivis_ros.model.stream import Stream
from moshivis_ros.model.tokenizer import Tokenizer

RELEASED_NAMES = {
    "config.yaml",
    "model.safetensors",
    "tokenizer-e351c8d8-checkpoint125.safetensors",
    "tokenizer_spm_32k_3.model",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return init_checkpoint(tmp_path_factory.mktemp("init") / "new" / "tiny")


def test_has_the_released_names_and_says_that_it_is_random(folder: Path) -> None:
    assert {file.name for file in folder.iterdir()} == RELEASED_NAMES
    assert sum(file.stat().st_size for file in folder.iterdir()) < 5e6
    assert not ModelConfig.load(folder).trained


def test_the_seed_decides_and_nothing_else_is_disturbed(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    again, other = init_checkpoint(tmp_path / "again"), init_checkpoint(tmp_path / "other", seed=1)
    assert torch.equal(torch.rand(3), expected), "the caller's random numbers were used up"
    for name in RELEASED_NAMES:
        assert (again / name).read_bytes() == (folder / name).read_bytes(), name
    for name in ("model.safetensors", "tokenizer-e351c8d8-checkpoint125.safetensors"):
        assert (other / name).read_bytes() != (folder / name).read_bytes(), name


def test_no_weight_is_zero(folder: Path) -> None:
    for file in folder.glob("*.safetensors"):
        for name, tensor in load_file(file).items():
            assert (tensor != 0).all(), name


def test_talks_and_looks(folder: Path) -> None:
    config = ModelConfig.load(folder)
    model = load_model(folder, "cpu", torch.float32)
    codec, text = Codec.load(folder, config, "cpu"), Tokenizer.load(folder, config).decoder()
    stream = Stream(model)
    generator = torch.Generator().manual_seed(0)
    stream.set_image(model.image_kv(2 * torch.rand(1, 3, 56, 56, generator=generator) - 1))
    pieces, gates, sound = [], [], []
    for _ in range(200):
        out = stream.step(codec.encode(0.1 * torch.randn(1, 1, 1920, generator=generator)))
        if stream.warm:
            pieces.append(text.push(int(out.tokens[0, 0])))
            gates.append(out.gates[0])
            sound.append(codec.decode(out.tokens[:, 1:])[0, 0])
    pcm = torch.cat(sound)
    assert pcm.isfinite().all() and pcm.abs().max() < 1
    assert 0.01 < pcm.std() < 0.2
    assert 0.3 < pieces.count(None) / len(pieces) < 0.95, "a mixture of padding and text, as in speech"
    spread = torch.stack(gates)
    assert spread.min() > 0.01 and spread.max() < 0.99
    assert spread.std(0).max() > 0.01, "the gates move"


def test_sound_has_no_offset(tmp_path: Path) -> None:
    folder = init_checkpoint(tmp_path, seed=1)
    codec = Codec.load(folder, ModelConfig.load(folder), "cpu")
    codes = torch.randint(64, (40, 1, 8), generator=torch.Generator().manual_seed(0))
    assert abs(torch.cat([codec.decode(frame) for frame in codes]).mean()) < 0.01


def test_refuses_a_folder_in_use(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="not an empty folder"):
        init_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="not an empty folder"):
        init_checkpoint(tmp_path / "notes.txt", overwrite=True)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]
    init_checkpoint(tmp_path, overwrite=True)
    assert {file.name for file in tmp_path.iterdir()} == RELEASED_NAMES | {"notes.txt"}


@pytest.mark.parametrize("size", ["moshika-vis", "huge"])
def test_refuses_another_size(size: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tiny, full"):
        init_checkpoint(tmp_path / "new", size=size)
    assert not (tmp_path / "new").exists()
