"""The exported image encoder gives the keys and values that torch gives, and is not used when it does not."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from moshivis_ros import cli
from moshivis_ros.conversation import Conversation
from moshivis_ros.errors import CheckpointError, ConfigError
from moshivis_ros.model.checkpoint import load_model
from moshivis_ros.model.onnx_encoder import OnnxImageEncoder, path_in
from moshivis_ros.model.sampling import GREEDY

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "tiny"))


@pytest.mark.parametrize("size", [56, 84, 60])  # the table's own size, interpolated, not whole patches
def test_equals_torch(folder: Path, size: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export-image-encoder", str(folder), "--image-size", str(size)]) == 0
    assert path_in(folder, size).name in capsys.readouterr().out
    model = load_model(folder, "cpu", torch.float32)
    encoder = OnnxImageEncoder(folder, model, size)
    assert encoder.error < 1e-5
    pixels = torch.rand(1, 3, size, size)
    with torch.no_grad():
        for found, expected in zip(encoder(pixels), model.image_kv(pixels), strict=True):
            assert found.shape == expected.shape
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


def test_serves_a_model_of_8_bits(folder: Path) -> None:
    assert cli.main(["export-image-encoder", str(folder)]) == 0
    with Conversation.load(folder, device="cpu", quantize="int8", image_encoder="onnx") as conversation:
        conversation.see(np.zeros((56, 56, 3), np.uint8), wait=True)


def test_a_file_of_other_weights_is_refused(folder: Path) -> None:
    assert cli.main(["export-image-encoder", str(folder)]) == 0
    model = load_model(folder, "cpu", torch.float32)
    model.image_prefix.norm_xa.alpha.mul_(1.01)
    with pytest.raises(CheckpointError, match="export it again"):
        OnnxImageEncoder(folder, model, model.config.image_size)


def test_a_missing_file_is_named_with_the_remedy(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="moshivis export-image-encoder .* --image-size 70"):
        OnnxImageEncoder(folder, load_model(folder, "cpu", torch.float32), 70)


def test_a_conversation_looks_through_it(folder: Path) -> None:
    assert cli.main(["export-image-encoder", str(folder)]) == 0
    shown = np.arange(56 * 56 * 3, dtype=np.uint8).reshape(56, 56, 3)
    frames = []
    for backend in ("torch", "onnx"):
        with Conversation.load(folder, device="cpu", sampling=GREEDY, image_encoder=backend) as conversation:
            conversation.see(shown, wait=True)
            frames.append([conversation.step(np.zeros(1920, np.float32)).gate for _ in range(5)])
    assert frames[0] == pytest.approx(frames[1], rel=1e-3) and max(frames[0]) > 0
    with pytest.raises(ConfigError, match="torch or onnx, not 'tensorrt'"):
        Conversation.load(folder, image_encoder="tensorrt")
