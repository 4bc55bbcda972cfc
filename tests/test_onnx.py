"""The exported image encoder gives the keys and values that torch gives, and is not used when it does not."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from moshivis_ros import cli
from moshivis_ros.conversation import Conversation
from moshivis_ros.errors import CheckpointError, ConfigError, MissingDependencyError
from moshivis_ros.model import onnx_encoder
from moshivis_ros.model.checkpoint import load_model, quantize_checkpoint
from moshivis_ros.model.onnx_encoder import OnnxImageEncoder, onnx_in_place_of, path_in
from moshivis_ros.model.sampling import GREEDY

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "tiny"))


@pytest.mark.parametrize("size", [56, 84, 60])  # the table's own size, interpolated, not whole patches
def test_equals_torch(folder: Path, size: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export-image-encoder", str(folder), "--image-size", str(size)]) == 0
    assert path_in(folder, size, torch.float32).name in capsys.readouterr().out
    model = load_model(folder, "cpu", torch.float32)
    encoder = OnnxImageEncoder(folder, model, size)
    assert encoder.error < 1e-5
    pixels = torch.rand(1, 3, size, size)
    with torch.no_grad():
        for found, expected in zip(encoder(pixels), model.image_kv(pixels), strict=True):
            assert found.shape == expected.shape
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("dtype, limit", [(torch.bfloat16, 2e-2), (torch.float16, 2e-3)])
def test_16_bits(folder: Path, dtype: torch.dtype, limit: float) -> None:
    """The numbers of its file are those of 16 bits, and what it gives is of the model's type."""
    path = onnx_encoder.export(folder, None, dtype)
    float32 = onnx_encoder.export(folder, None, torch.float32)
    sizes = [file.with_name(f"{file.name}.data").stat().st_size for file in (path, float32)]
    assert 2 * sizes[0] == sizes[1]
    encoder = OnnxImageEncoder(folder, load_model(folder, "cpu", dtype), 56)
    assert 1e-5 < encoder.error < limit
    assert {x.dtype for x in encoder(torch.rand(1, 3, 56, 56))} == {dtype}


def test_of_a_model_of_8_bits(folder: Path, tmp_path: Path) -> None:
    """It serves one, and is made from one; the encoder that it takes the place of leaves the memory."""
    onnx_encoder.export(folder, None, torch.float32)
    with Conversation.load(folder, device="cpu", quantize="int8", image_encoder="onnx") as conversation:
        conversation.see(np.zeros((56, 56, 3), np.uint8), wait=True)
    small = tmp_path / "small"
    quantize_checkpoint(folder, small, "int8")
    onnx_encoder.export(small, None, torch.float32)
    model = load_model(small, "cpu", torch.float32)
    assert onnx_in_place_of(model, small, 56).error < 1e-5
    of_pictures = (
        *model.image_prefix.buffers(),
        *model.llm.transformer.shared_cross_attention.kv_proj.buffers(),
    )
    assert of_pictures and all(tensor.is_meta for tensor in of_pictures)


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


class GpuRuntime:
    """onnxruntime as it is on a GPU: takes down what it is asked for."""

    def __init__(self, *available: str) -> None:
        self.available = [*available, "CPUExecutionProvider"]
        self.works = self.available
        self.sessions: list[Any] = []
        self.bound: list[Any] = []

    def get_available_providers(self) -> list[str]:
        return self.available

    def SessionOptions(self) -> Any:
        return SimpleNamespace()

    def InferenceSession(self, path: str, options: Any, providers: Any) -> Any:
        self.sessions.append(providers)
        names = [name for name, _ in providers if name in self.works] + ["CPUExecutionProvider"]
        binding = SimpleNamespace(bind_input=self._bind, bind_output=self._bind)
        return SimpleNamespace(
            get_providers=lambda: names,
            io_binding=lambda: binding,
            run_with_iobinding=lambda binding: self.bound.append("run"),
        )

    def _bind(self, *what: Any) -> None:
        self.bound.append(what)


class Gpu:
    """A tensor's view of a second GPU: CPU tensors that say that they are there."""

    type, index = "cuda", 1


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The stream of the pictures has the number 77; what is made on the GPU is made here."""
    monkeypatch.setattr(onnx_encoder, "computing", lambda device, priority: torch.no_grad())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=77))
    empty, to = torch.empty, torch.Tensor.to

    def here(*arguments: Any, **more: Any) -> Any:
        return empty(*arguments, **{**more, "device": "cpu"})

    monkeypatch.setattr(torch, "empty", here)
    monkeypatch.setattr(
        torch.Tensor,
        "to",
        lambda x, *where, **more: to(x, *("cpu" if isinstance(w, Gpu) else w for w in where), **more),
    )
    return Gpu()


def model_on(gpu: Any, model: Any) -> Any:
    """The model as the encoder sees it, on that GPU."""
    weight = SimpleNamespace(device=gpu, dtype=torch.bfloat16)
    llm = SimpleNamespace(out_norm=SimpleNamespace(alpha=weight), transformer=model.llm.transformer)
    return SimpleNamespace(
        llm=llm, config=model.config, image_kv=model.image_kv, image_prefix=model.image_prefix
    )


def test_on_a_gpu(folder: Path, gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT in float16 on the model's own GPU and on the stream of pictures; tensors are bound where they are."""
    onnx_encoder.export(folder, None, torch.bfloat16)
    model = load_model(folder, "cpu", torch.bfloat16)
    runtime = GpuRuntime("TensorrtExecutionProvider", "CUDAExecutionProvider")
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    monkeypatch.setattr(OnnxImageEncoder, "_compare", lambda *_: 0.0)
    encoder = OnnxImageEncoder(folder, model_on(gpu, model), 56)
    place = {"device_id": 1, "user_compute_stream": "77"}
    (name, options), cuda = runtime.sessions[0]
    assert name == "TensorrtExecutionProvider" and cuda == ("CUDAExecutionProvider", place)
    assert options["trt_fp16_enable"] is True and place.items() <= options.items()
    k, v = encoder(torch.rand(1, 3, 56, 56))
    given, *taken, run = runtime.bound
    shape = (1, model.config.num_heads, 16, model.config.dim // model.config.num_heads)
    assert given[:5] == ("pixel_values", "cuda", 1, np.float32, (1, 3, 56, 56))
    assert [t[:5] for t in taken] == [(x, "cuda", 1, np.float16, shape) for x in "kv"] and run == "run"
    assert k.shape == shape and k.dtype == torch.bfloat16


def test_a_runtime_that_cannot_use_the_gpu_is_refused(
    folder: Path, gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not taken for a slow one: a picture would take seconds, and nobody would know why."""
    onnx_encoder.export(folder, None, torch.bfloat16)
    model = model_on(gpu, load_model(folder, "cpu", torch.bfloat16))
    monkeypatch.setitem(sys.modules, "onnxruntime", GpuRuntime())
    with pytest.raises(MissingDependencyError, match="pip install onnxruntime-gpu"):
        OnnxImageEncoder(folder, model, 56)
    broken = GpuRuntime("CUDAExecutionProvider")
    broken.works = []
    monkeypatch.setitem(sys.modules, "onnxruntime", broken)
    with pytest.raises(MissingDependencyError, match="cannot start CUDAExecutionProvider"):
        OnnxImageEncoder(folder, model, 56)
