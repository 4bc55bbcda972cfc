"""config.yaml: the reference's keys are read, anything else is refused by name."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from moshivis_ros.errors import ConfigError
from moshivis_ros.model.config import ModelConfig

GOLDEN = Path(__file__).parent / "golden" / "tiny_a" / "config.yaml"


def load(folder: Path, **changes: object) -> ModelConfig:
    raw = yaml.safe_load(GOLDEN.read_text()) | changes
    (folder / "config.yaml").write_text(yaml.safe_dump(raw))
    return ModelConfig.load(folder)


def test_reference_keys_are_read(tmp_path: Path) -> None:
    config = load(tmp_path)
    assert (config.dim, config.num_layers, config.context, config.siglip.hidden_size) == (64, 3, 24, 32)
    assert config.delays[:3] == (0, 0, 1) and config.max_delay == 1
    assert config.trained and config.mimi is None


def test_no_file_means_the_released_model(tmp_path: Path) -> None:
    assert ModelConfig.load(tmp_path) == ModelConfig.preset("moshika-vis")


@pytest.mark.parametrize("name", ["moshika-vis", "tiny"])
def test_what_is_saved_is_loaded(tmp_path: Path, name: str) -> None:
    config = dataclasses.replace(ModelConfig.preset(name), gate_high=0.5, delays=(0,) * 17)
    config.save(tmp_path)
    assert ModelConfig.load(tmp_path) == config


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"xa_gating": "tanh"}, "xa_gating: 'tanh' is not supported, only 'sigmoid'"),
        ({"num_head": 4}, "unknown key 'num_head', did you mean 'num_heads'"),
        ({"num_heads": 5}, r"dim \(64\) must be a multiple of num_heads \(5\)"),
        ({"norm": "layer_norm"}, "norm: one of rms_norm, .* is expected, found 'layer_norm'"),
        ({"delays": [0, 1]}, "delays must hold n_q \\+ 1 = 17 numbers"),
        ({"dep_q": 16, "depformer_context": 16}, r"dep_q \(16\) must be between 1 and n_q - 1"),
        ({"depformer_context": 4}, "depformer_context: 4 is less than dep_q"),
        ({"siglip": {"hidden_act": "relu"}}, "only hidden_act gelu_pytorch_tanh"),
        ({"siglip": {"depth": 2}}, "depth"),
        ({"gate_low": 0.5, "gate_high": 0.1}, "gate_low"),
        ({"image_size": 8}, "image_size 8 is smaller than a patch"),
    ],
)
def test_another_network_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        load(tmp_path, **changes)
    assert str(tmp_path / "config.yaml") in str(error.value)


def test_text_that_is_no_yaml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("a: [1,")
    with pytest.raises(ConfigError, match="config.yaml"):
        ModelConfig.load(tmp_path)
    with pytest.raises(ConfigError, match="no preset 'huge': choose one of moshika-vis, tiny"):
        ModelConfig.preset("huge")
