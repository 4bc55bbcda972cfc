"""The image encoder (SigLIP, projection, keys and values) on ONNX Runtime, beside the stream.

`moshivis export-image-encoder FOLDER` writes one file for one picture size and one type of numbers; TensorRT or CUDA runs
it where the model is on a GPU, the CPU where it is not.
"""

from __future__ import annotations

import argparse
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from moshivis_ros import arguments
from moshivis_ros.errors import CheckpointError, MissingDependencyError
from moshivis_ros.model.checkpoint import load_model, resolve
from moshivis_ros.model.device import BESIDE, computing
from moshivis_ros.model.lm import MoshiVis
from moshivis_ros.model.packed import PackedLinear

# Of the model's type: bfloat16 is rounded more than float16, and not every version of a provider knows it.
FILE_TYPES = {torch.float32: np.float32, torch.bfloat16: np.float16, torch.float16: np.float16}
TOLERANCE = 1e-3  # relative; float16, bfloat16 and an encoder in 8 bits (compact.py) round more
LOW_PRECISION_TOLERANCE = 3e-2
TRACED = 2  # patches along a side of the picture that the graph is made from: it is the same for any number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Writes the image encoder of a checkpoint as an ONNX file, beside the weights."
    parser.add_argument("model", help="checkpoint folder or Hugging Face repo id")
    parser.add_argument(
        "--image-size", type=arguments.whole(1, 2048), help="pixels of the square (default: the checkpoint's)"
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="type of the model that it shall serve (default: as in talking)",
    )


def run(args: argparse.Namespace) -> int:
    default = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    path = export(resolve(args.model), args.image_size, getattr(torch, args.dtype) if args.dtype else default)
    size = path.stat().st_size + _data(path).stat().st_size
    print(f"{path}, {_data(path).name}: {size / 1e6:.1f} MB; compared with the weights whenever it is opened")
    return 0


def path_in(folder: Path, image_size: int, dtype: torch.dtype) -> Path:
    """Of the file that serves a model of type ``dtype``."""
    return folder / f"image_encoder_{image_size}_{np.dtype(FILE_TYPES[dtype]).name}.onnx"


def export(checkpoint: Path, image_size: int | None, dtype: torch.dtype) -> Path:
    """Write the encoder of a checkpoint (its folder, or the file of its weights) for pictures of ``image_size`` pixels.

    Only the encoder is loaded, and written tensor by tensor. Raises MissingDependencyError without the onnx library.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingDependencyError("the export needs the onnx library: pip install onnx") from error
    type_ = torch.from_numpy(np.zeros(0, FILE_TYPES[dtype])).dtype
    model = load_model(
        checkpoint, "cpu", type_, wanted=lambda name: "image_prefix." in name or ".mha." in name
    )
    size = image_size or model.config.image_size
    encoder = _ImageKV(model, type_)
    patches = size // model.config.siglip.patch_size
    with torch.no_grad():
        positions = encoder.take_positions(patches)
        graph = _graph(encoder, TRACED * model.config.siglip.patch_size)
    weights = {name: weight.detach() for name, weight in encoder.named_parameters()}
    weights[encoder.POSITIONS] = positions

    network = onnx.load_from_string(graph)
    shape = {"pixel_values": (1, 3, size, size)}
    shape["k"] = shape["v"] = _shape(model, size)
    for value in (*network.graph.input, *network.graph.output):
        for part, number in zip(value.type.tensor_type.shape.dim, shape.get(value.name, ())):
            part.dim_value = number
    del network.graph.value_info[:]  # shapes of the picture that it was made from
    inputs = [value for value in network.graph.input if value.name in weights]
    path = path_in(checkpoint if checkpoint.is_dir() else checkpoint.parent, size, dtype)
    with _data(path).open("wb") as file:
        for value in inputs:
            network.graph.input.remove(value)
            tensor = network.graph.initializer.add(
                name=value.name,
                data_type=value.type.tensor_type.elem_type,
                data_location=onnx.TensorProto.EXTERNAL,
            )
            weight = weights[value.name].contiguous()
            tensor.dims.extend(weight.shape)
            place = {"location": _data(path).name, "offset": file.tell(), "length": weight.nbytes}
            for key, entry in place.items():
                tensor.external_data.add(key=key, value=str(entry))
            weight.numpy().tofile(file)
    path.write_bytes(network.SerializeToString())
    return path


def onnx_in_place_of(model: MoshiVis, folder: Path, image_size: int) -> OnnxImageEncoder:
    """See OnnxImageEncoder. The model's own encoder, which nobody needs any more, gives back its memory."""
    encoder = OnnxImageEncoder(folder, model, image_size)
    for part in (model.image_prefix, model.llm.transformer.shared_cross_attention.kv_proj):
        part.to("meta")
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return encoder


class OnnxImageEncoder:
    """Pictures [1, 3, S, S] float32 -> cross-attention keys and values, as MoshiVis.image_kv gives them.

    They are where the model is: nothing of them passes through the host.
    """

    def __init__(self, folder: Path, model: MoshiVis, image_size: int) -> None:
        """Open the exported file, and compare it with ``model`` on one picture.

        Raises CheckpointError when it is missing or differs, MissingDependencyError without an onnxruntime for the model's
        device.
        """
        weight = model.llm.out_norm.alpha
        self._device, self._dtype = weight.device, weight.dtype
        path = path_in(folder, image_size, self._dtype)
        if not path.is_file():
            dtype = str(self._dtype).removeprefix("torch.")
            raise CheckpointError(
                f"{path} is missing: moshivis export-image-encoder {folder} --image-size {image_size} --dtype {dtype}"
            )
        self._file_type = FILE_TYPES[self._dtype]
        self._shape = _shape(model, image_size)
        runtime = _runtime()
        providers = _providers(runtime.get_available_providers(), self._device, folder, self._file_type)
        options = runtime.SessionOptions()
        options.log_severity_level = 3  # errors, and not every constant that it cannot compute in advance
        self._session = runtime.InferenceSession(str(path), options, providers=providers)
        self.provider: str = self._session.get_providers()[0]
        if self.provider != providers[0][0]:
            raise MissingDependencyError(
                f"onnxruntime cannot start {providers[0][0]} (what it wrote is above): install the CUDA and cuDNN "
                "that its version wants, or leave image_encoder='onnx' out"
            )
        self.error = self._compare(model, image_size)
        small = any(isinstance(layer, PackedLinear) for layer in model.image_prefix.modules())
        limit = LOW_PRECISION_TOLERANCE if small or self._dtype != torch.float32 else TOLERANCE
        if not self.error <= limit:
            raise CheckpointError(
                f"{path} differs from the weights by {self.error:.1e} (relative; allowed: {limit:.0e}): "
                "export it again"
            )

    def __call__(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        with computing(self._device, BESIDE):
            pixels = pixel_values.to(self._device, torch.float32).contiguous()
            type_ = torch.from_numpy(np.zeros(0, self._file_type)).dtype
            k, v = (torch.empty(self._shape, dtype=type_, device=self._device) for _ in range(2))
            binding = self._session.io_binding()
            place = self._device.type, self._device.index or 0
            binding.bind_input("pixel_values", *place, np.float32, tuple(pixels.shape), pixels.data_ptr())
            for name, tensor in (("k", k), ("v", v)):
                binding.bind_output(name, *place, self._file_type, self._shape, tensor.data_ptr())
            self._session.run_with_iobinding(binding)
            return k.to(self._dtype), v.to(self._dtype)

    @torch.no_grad()
    def _compare(self, model: MoshiVis, image_size: int) -> float:
        generator = torch.Generator().manual_seed(0)
        pixels = 2 * torch.rand(1, 3, image_size, image_size, generator=generator) - 1
        found = torch.cat([x.float() for x in self(pixels)])
        expected = torch.cat([x.float() for x in model.image_kv(pixels.to(self._device))])
        return float((found - expected).norm() / expected.norm())


class _ImageKV(nn.Module):
    """What a picture goes through, with weights as plain as they can be."""

    POSITIONS = "prefix.enc.model.embeddings.position_embedding.weight"

    def __init__(self, model: MoshiVis, dtype: torch.dtype) -> None:
        super().__init__()
        self.prefix = model.image_prefix
        self.shared = model.llm.transformer.shared_cross_attention
        for parent in list(self.modules()):
            for name, layer in list(parent.named_children()):
                if isinstance(layer, PackedLinear):
                    setattr(parent, name, layer.unpacked(dtype))

    def take_positions(self, patches: int) -> Tensor:
        """The learned positions of so many patches along a side; those of a smaller picture stay."""
        embeddings = self.prefix.enc.model.embeddings
        table = embeddings.position_table(patches, patches)
        embeddings.grid = TRACED
        embeddings.position_embedding.weight = nn.Parameter(table[: TRACED**2].clone(), requires_grad=False)
        return table

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        return self.shared.keys_values(self.prefix(pixel_values))


def _graph(encoder: nn.Module, pixels: int) -> bytes:
    """The network without its weights, which are inputs, for pictures of any size."""
    graph = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # of tracing and of the exporter's age: the check at load is the proof
        torch.onnx.export(
            encoder.eval(),
            (torch.zeros(1, 3, pixels, pixels),),
            graph,  # type: ignore[arg-type]  # a file in memory will do, too
            input_names=["pixel_values"],
            output_names=["k", "v"],
            dynamic_axes={"pixel_values": {2: "height", 3: "width"}},
            opset_version=17,
            export_params=False,
            do_constant_folding=False,
            dynamo=False,  # the newer exporter needs more libraries
        )
    return graph.getvalue()


def _shape(model: MoshiVis, image_size: int) -> tuple[int, int, int, int]:
    """Of the keys, and of the values."""
    config = model.config
    return 1, config.num_heads, config.image_tokens(image_size), config.dim // config.num_heads


def _data(path: Path) -> Path:
    """The weights beside the network, whose own file must stay below 2 GB."""
    return path.with_name(f"{path.name}.data")


def _providers(
    available: list[str], device: torch.device, folder: Path, file_type: Any
) -> list[tuple[str, dict[str, Any]]]:
    """Those that run on ``device``, the fastest first. Raises MissingDependencyError where there is none."""
    if device.type != "cuda":
        return [("CPUExecutionProvider", {})]
    with computing(device, BESIDE):
        stream = str(torch.cuda.current_stream().cuda_stream)
    place = {"device_id": device.index or 0, "user_compute_stream": stream}
    tensorrt = {
        "trt_fp16_enable": file_type is np.float16,
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(folder / "tensorrt"),
    }
    ours = [("TensorrtExecutionProvider", {**place, **tensorrt}), ("CUDAExecutionProvider", place)]
    found = [provider for provider in ours if provider[0] in available]
    if not found:
        raise MissingDependencyError(
            "image_encoder='onnx' needs an ONNX Runtime for the GPU, and this one has none: "
            "pip uninstall onnxruntime; pip install onnxruntime-gpu (on a Jetson take NVIDIA's wheel for your JetPack)"
        )
    return found


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            "image_encoder='onnx' needs ONNX Runtime: pip install onnxruntime-gpu (with an NVIDIA GPU) or onnxruntime"
        ) from error
    return onnxruntime
