"""What pip installs: torch and its CUDA, Triton and what it compiles with, ONNX Runtime, Mimi; and the model's files."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from moshivis_ros.doctor.machine import is_jetson
from moshivis_ros.errors import MissingDependencyError, MoshiVisError
from moshivis_ros.finding import Finding

TORCH_FOR_JETSON = "pip install torch --index-url <the index of NVIDIA's wheels for your JetPack>"
DOWNLOAD = 16_600_000_000  # bytes of the released model
ONNX_ONLY = "only image_encoder:=onnx needs it"


def torch(gpu: bool) -> Iterator[Finding]:
    """``gpu``: the driver has found one."""
    again = TORCH_FOR_JETSON if is_jetson() else "pip install --force-reinstall torch"
    try:
        from moshivis_ros.model import torch
    except MissingDependencyError as error:
        yield Finding(
            "torch",
            "wrong",
            str(error).partition(":")[0],
            TORCH_FOR_JETSON if is_jetson() else "pip install -U torch",
        )
        return
    except OSError as error:  # one of its libraries is not there
        yield Finding("torch", "wrong", f"it is broken: {error}", again)
        return
    build = f"{torch.__version__}, for " + (
        f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPUs only"
    )
    if not torch.cuda.is_available():
        blind = gpu or is_jetson()
        text = build + (": it does not use the GPU that is here" if blind else "")
        yield Finding("torch", "wrong" if blind else "fine", text, again if blind else "")
        return
    for index in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(index)
        free, total = torch.cuda.mem_get_info(index)
        text = (
            f"{build}; cuda:{index} {torch.cuda.get_device_name(index)}, compute capability {major}.{minor}, "
        )
        text += f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free"
        built = torch.cuda.get_arch_list()
        runs = any(arch.startswith(f"sm_{major}") or arch.startswith("compute_") for arch in built)
        if not runs:
            text += f"; it was built for {', '.join(built)} and not for this one"
        yield Finding("torch", "fine" if runs else "wrong", text, "" if runs else again)


def triton() -> Iterator[Finding]:
    """It compiles on the robot, with a C compiler and Python's headers."""
    from moshivis_ros.model import torch
    from moshivis_ros.model.kernels.form import triton_runs

    if not torch.cuda.is_available():
        yield Finding("triton", "absent", "not used without a GPU")
        return
    version = _version("triton") or "none"
    header = Path(sysconfig.get_path("include")) / "Python.h"
    missing = []
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang") or shutil.which("cc")):
        missing.append("gcc")
    if not header.is_file():
        missing.append(f"libpython{sys.version_info.major}.{sys.version_info.minor}-dev")
    if missing:
        text = f"{version}, without what it compiles with ({', '.join(missing)}): a step takes three times the launches"
        yield Finding("triton", "wrong", text, f"sudo apt install {' '.join(missing)}")
        return
    told: list[str] = []
    logger, handler = logging.getLogger("moshivis_ros.model.kernels.form"), logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    try:
        runs = triton_runs()
    finally:
        logger.removeHandler(handler)
    if runs:
        yield Finding("triton", "fine", f"{version}, it compiles and starts kernels")
    else:
        text, _, remedy = " ".join(told).rpartition("To have it: ")
        yield Finding("triton", "wrong", text.strip() or "it does not run", remedy or "pip install triton")


def onnxruntime(gpu: bool) -> Iterator[Finding]:
    try:
        import onnxruntime
    except ImportError:
        package = "onnxruntime-gpu" if gpu else "onnxruntime"
        yield Finding("onnxruntime", "absent", f"not installed; {ONNX_ONLY}", f"pip install {package}")
        return
    providers = [name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()]
    text = f"{onnxruntime.__version__}, on {', '.join(providers)}"
    blind = gpu and "CUDA" not in providers
    remedy = "pip uninstall -y onnxruntime && pip install onnxruntime-gpu" if blind else ""
    text += f"; it cannot use the GPU ({ONNX_ONLY})" if blind else ""
    yield Finding("onnxruntime", "absent" if blind else "fine", text, remedy)


def moshi() -> Iterator[Finding]:
    try:
        import moshi.models.loaders  # noqa: F401
    except (ImportError, OSError) as error:
        remedy = "pip install --no-deps moshi==0.2.13 && pip install einops sentencepiece 'huggingface_hub<1'"
        yield Finding("moshi", "wrong", f"there is no Mimi codec without it ({error})", remedy)
        return
    yield Finding("moshi", "fine", f"{_version('moshi')}, with the Mimi codec")


def model(name: str) -> Iterator[Finding]:
    """Whether its files are here and whole, and which form of it would be loaded."""
    from moshivis_ros.model.checkpoint import resolve
    from moshivis_ros.model.config import ModelConfig
    from moshivis_ros.model.device import default_dtype, find_device
    from moshivis_ros.model.fit import choose
    from moshivis_ros.model.weights import open_file

    if (place := _not_here(name)) is not None:
        free = shutil.disk_usage(place).free
        text = f"{name} is not downloaded yet; {free / 1e9:.1f} GB are free in {place}"
        if free < DOWNLOAD:
            yield Finding(
                "model",
                "wrong",
                f"{text}, and it may take {DOWNLOAD / 1e9:.1f}",
                "export HF_HOME=<a larger disk>",
            )
        else:
            yield Finding(
                "model", "absent", f"{text}, when it is first used or by this", f"hf download {name}"
            )
        return
    downloaded = name != "builtin" and not Path(name).expanduser().exists()
    try:
        device = find_device("auto")
        path = resolve(name, None, device, "int8")
        if path.suffix != ".gguf":
            open_file(path if path.is_file() else path / ModelConfig.load(path).model)
        choice = choose(path, device, default_dtype(device))
    except MoshiVisError as error:
        yield Finding(
            "model", "wrong", str(error), f"hf download {name} --force-download" if downloaded else ""
        )
        return
    text = f"{name} in {path if path.is_dir() else path.parent}" + (
        f"; {choice.reason}" if choice.reason else ""
    )
    yield Finding("model", "fine" if choice.live else "wrong", text)


def _not_here(name: str) -> Path | None:
    """Where a model of the hub would be put that is not there yet."""
    from huggingface_hub import constants, try_to_load_from_cache

    from moshivis_ros.model import released
    from moshivis_ros.model.config import ModelConfig

    if name == "builtin" or Path(name).expanduser().exists() or name.count("/") != 1:
        return None
    files = released.REPOS.get(name, [ModelConfig.preset("moshika-vis").model])
    if any(isinstance(try_to_load_from_cache(name, file), str) for file in files):
        return None
    place = Path(constants.HF_HUB_CACHE)
    return next(folder for folder in (place, *place.parents) if folder.exists())


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
