"""What the frozen parts of the model make of pictures and sounds, computed once and kept on disk.

A picture becomes the tokens [N, hidden] of the image encoder, before the projection; a sound the tokens [2 * K, T] of Mimi,
those of its left channel first. A file belongs to the name, size and time of what it was made from, and to the weights.
"""

from __future__ import annotations

import hashlib
import os
import wave
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from moshivis_ros.errors import ConfigError, OutputError
from moshivis_ros.model.checkpoint import load_model
from moshivis_ros.model.codec import FRAME_SIZE, build_mimi, released_layout
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.image_encoder import preprocess
from moshivis_ros.model.weights import load_into, unfilled


class Prepared:
    """``folder``: where files are kept; ``checkpoint``: file of the weights, ``config``: its configuration; ``dtype``: of the
    image encoder and what it gives.
    """

    def __init__(self, folder: Path, checkpoint: Path, config: ModelConfig, dtype: torch.dtype) -> None:
        self.folder, self.checkpoint, self.config, self.dtype = folder, checkpoint, config, dtype
        self._codec = checkpoint.parent / config.mimi_codec

    def picture(self, path: Path) -> Tensor:
        """[N, hidden]"""
        return load_file(self._file(path, self.checkpoint))["tokens"]

    def sound(self, path: Path) -> Tensor:
        """[2 * K, T] int16"""
        return load_file(self._file(path, self._codec))["tokens"]

    def absent(self, pictures: Sequence[Path]) -> int:
        """Bytes of the pictures that are not there yet."""
        each = self.config.image_tokens() * self.config.siglip.hidden_size * self.dtype.itemsize
        return each * sum(not self._file(path, self.checkpoint).is_file() for path in pictures)

    def prepare(self, pictures: Sequence[Path], sounds: Sequence[Path], device: torch.device) -> None:
        """Make what is not there. Raises ConfigError for a picture that is none, and OutputError for a full disk."""
        absent = [path for path in pictures if not self._file(path, self.checkpoint).is_file()]
        if absent:
            model = load_model(
                self.checkpoint, device, self.dtype, wanted=lambda name: name.startswith("image_prefix.enc.")
            )

            def encode(path: Path) -> Tensor:
                pixels = preprocess(_read_picture(path), self.config.image_size).to(device)
                tokens: Tensor = model.image_prefix.enc.model(pixels)[0].to(self.dtype)
                return tokens

            self._all(absent, self.checkpoint, encode, "pictures")
            del model
        silent = [path for path in sounds if not self._file(path, self._codec).is_file()]
        if silent:
            self._all(silent, self._codec, self._encoder(device), "sounds")

    @torch.no_grad()
    def _all(self, paths: Sequence[Path], weights: Path, encode: Callable[[Path], Tensor], what: str) -> None:
        for path in track(paths, f"encoding {what}"):
            file = self._file(path, weights)
            partial = file.with_suffix(f".{os.getpid()}")
            try:
                save_file({"tokens": encode(path).cpu().contiguous()}, partial)
                os.replace(partial, file)
            except (OSError, SafetensorError) as error:
                raise OutputError(
                    f"{file} cannot be written ({error}): free some space, or set another `cache`"
                ) from error

    def _encoder(self, device: torch.device) -> Callable[[Path], Tensor]:
        with unfilled():
            mimi = build_mimi(self.config)
        load_into(mimi, self._codec, released_layout(mimi.state_dict()), device, torch.float32)
        from moshi.utils.compile import no_compile, no_cuda_graph

        def encode(path: Path) -> Tensor:
            with wave.open(str(path), "rb") as file:
                data = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
            pcm = torch.from_numpy(data.reshape(-1, 2).T.copy())[:, None].to(device)
            pcm = torch.nn.functional.pad(pcm, (0, -pcm.shape[-1] % FRAME_SIZE))
            with no_compile(), no_cuda_graph():
                codes: Tensor = mimi.encode(pcm)
            return codes.flatten(0, 1).to(torch.int16)

        return encode

    def _file(self, path: Path, weights: Path) -> Path:
        parts = [f"{self.config.image_size} {self.dtype}"]
        for each in (path, weights):
            stat = each.stat()
            parts.append(f"{each.resolve()} {stat.st_size} {stat.st_mtime_ns}")
        return self.folder / f"{hashlib.sha1(' '.join(parts).encode()).hexdigest()}.safetensors"


def _read_picture(path: Path) -> NDArray[np.uint8]:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ConfigError(f"{path} is no picture that can be read: replace it, or take its samples out")
    return np.asarray(image[..., ::-1], np.uint8)
