"""The image encoder (SigLIP, projection, keys and values) on ONNX Runtime, beside the stream.

`moshivis export-image-encoder FOLDER` writes one file for one picture size; TensorRT, CUDA or the CPU runs it.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from moshivis_ros import arguments
from moshivis_ros.errors import CheckpointError, MissingDependencyError
from moshivis_ros.model.checkpoint import load_model, resolve
from moshivis_ros.model.lm import MoshiVis
from moshivis_ros.model.packed import PackedLinear

PROVIDERS = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
TOLERANCE = 1e-3  # relative; float16, bfloat16 and an encoder in 8 bits (compact.py) round more
LOW_PRECISION_TOLERANCE = 3e-2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Writes the image encoder of a checkpoint as an ONNX file, beside the weights."
    parser.add_argument("model", help="checkpoint folder or Hugging Face repo id")
    parser.add_argument("--image-size", type=arguments.whole(1, 2048), help="pixels of the square (default: the checkpoint's)")


def run(args: argparse.Namespace) -> int:
    folder = resolve(args.model)
    model = load_model(folder, "cpu", torch.float32)
    path = export(model, folder, args.image_size or model.config.image_size)
    encoder = OnnxImageEncoder(folder, model, args.image_size or model.config.image_size)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, differs from torch by {encoder.error:.1e}")
    return 0


def path_in(folder: Path, image_size: int) -> Path:
    return folder / f"image_encoder_{image_size}.onnx"


def export(model: MoshiVis, folder: Path, image_size: int) -> Path:
    """Write the encoder for pictures of ``image_size`` pixels; ``model`` in float32 on the CPU.

    Raises MissingDependencyError without the onnx library.
    """
    path = path_in(folder, image_size)
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("the export needs the onnx library: pip install onnx") from error
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter(
            "ignore"
        )  # of tracing and of the exporter's age: the check at load is the proof
        torch.onnx.export(
            _ImageKV(model).eval(),
            (torch.zeros(1, 3, image_size, image_size),),
            str(path),
            input_names=["pixel_values"],
            output_names=["k", "v"],
            opset_version=17,
            dynamo=False,  # the newer exporter needs more libraries
        )
    return path


class OnnxImageEncoder:
    """Pictures [1, 3, S, S] float32 -> cross-attention keys and values, as MoshiVis.image_kv gives them."""

    def __init__(self, folder: Path, model: MoshiVis, image_size: int) -> None:
        """Open the exported file, and compare it with ``model`` on one picture.

        Raises CheckpointError when it is missing or differs, MissingDependencyError without onnxruntime.
        """
        path = path_in(folder, image_size)
        if not path.is_file():
            raise CheckpointError(
                f"{path} is missing: moshivis export-image-encoder {folder} --image-size {image_size}"
            )
        runtime = _runtime()
        cache = {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(folder / "tensorrt")}
        options = {"TensorrtExecutionProvider": cache}
        available = [name for name in PROVIDERS if name in runtime.get_available_providers()]
        providers = [(name, options.get(name, {})) for name in available]
        self._session = runtime.InferenceSession(str(path), providers=providers)
        self.provider: str = self._session.get_providers()[0]
        weight = model.llm.out_norm.alpha
        self._device, self._dtype = weight.device, weight.dtype
        self.error = self._compare(model, image_size)
        small = any(isinstance(layer, PackedLinear) for layer in model.image_prefix.modules())
        limit = LOW_PRECISION_TOLERANCE if small or self._dtype != torch.float32 else TOLERANCE
        if not self.error <= limit:
            raise CheckpointError(
                f"{path} differs from the weights by {self.error:.1e} (relative; allowed: {limit:.0e}): "
                "export it again"
            )

    def __call__(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        k, v = self._session.run(None, {"pixel_values": pixel_values.float().cpu().numpy()})
        return tuple(torch.from_numpy(x).to(self._device, self._dtype) for x in (k, v))  # type: ignore[return-value]

    @torch.no_grad()
    def _compare(self, model: MoshiVis, image_size: int) -> float:
        generator = torch.Generator().manual_seed(0)
        pixels = 2 * torch.rand(1, 3, image_size, image_size, generator=generator) - 1
        found = torch.cat([x.float() for x in self(pixels)])
        expected = torch.cat([x.float() for x in model.image_kv(pixels.to(self._device))])
        return float((found - expected).norm() / expected.norm())


class _ImageKV(nn.Module):
    def __init__(self, model: MoshiVis) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.image_kv(pixel_values)


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            "image_encoder='onnx' needs ONNX Runtime: pip install onnxruntime-gpu (with an NVIDIA GPU) or onnxruntime"
        ) from error
    return onnxruntime
