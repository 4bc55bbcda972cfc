"""Sound to tokens and back: the Mimi codec of the ``moshi`` library, streaming frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from moshivis_ros.errors import ConfigError, MissingDependencyError
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.recorded import record
from moshivis_ros.model.weights import load_into, unfilled

SAMPLE_RATE = 24000
FRAME_SIZE = 1920  # samples


class Codec:
    """Mimi with the state of one encoder stream and one decoder stream, ``batch_size`` of each.

    Always float32.
    """

    def __init__(self, mimi: Any, batch_size: int = 1) -> None:
        self._mimi = mimi
        self._batch_size = batch_size
        self._utils = _moshi().utils.compile
        mimi.streaming_forever(batch_size)
        self._encoder = _Direction(mimi, mimi.encode)
        self._decoder = _Direction(mimi, mimi.decode)

    @classmethod
    def load(
        cls, folder: Path | str, config: ModelConfig, device: torch.device | str, batch_size: int = 1
    ) -> Codec:
        """Read the Mimi file of a checkpoint folder.

        Raises CheckpointError (the file), ConfigError (config.yaml) and MissingDependencyError.
        """
        with unfilled():
            mimi = build_mimi(config)
        path = Path(folder) / config.mimi_codec
        mimi = load_into(mimi, path, released_layout(mimi.state_dict()), device, torch.float32)
        return cls(mimi, batch_size)

    @property
    def size(self) -> int:
        """Bytes of the weights."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self._mimi.state_dict().values())

    def record(self, pool: Any = None) -> None:
        """Record both directions: from now on frames are computed without Python. Forgets what was heard and said.

        On a GPU the results are overwritten by what else is recorded with this ``pool`` (recorded.new_pool).
        """
        silence = torch.zeros(self._batch_size, 1, FRAME_SIZE, device=next(self._mimi.parameters()).device)
        codes = self.encode(silence)
        self.decode(codes)
        with torch.no_grad(), self._plainly():
            self._encoder.record(silence, pool)
            self._decoder.record(codes[:, :, None], pool)
        self.reset()

    @torch.no_grad()
    def encode(self, pcm: Tensor) -> Tensor:
        """One frame of sound [B, 1, 1920], float32 at 24 kHz in -1..1 -> codes [B, K] int64."""
        with self._plainly():
            return self._encoder(pcm)[:, :, 0]

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes [B, K] of one frame, each 0 <= code < audio_card -> sound [B, 1, 1920] float32."""
        with self._plainly():
            return self._decoder(codes[:, :, None])

    def reset(self) -> None:
        """Forget what was heard and said."""
        self._mimi.reset_streaming()
        self._encoder.started = self._decoder.started = False

    @contextmanager
    def _plainly(self) -> Iterator[None]:
        """moshi would hand its rotary embedding to torch.compile, which wants a C++ compiler on the robot; and record parts of
        each direction on a GPU itself, with the rest between them, on the current device and as urgent as a picture.
        """
        with self._utils.no_compile(), self._utils.no_cuda_graph():
            yield


class _Direction:
    """Encoder or decoder, frame by frame: plainly, or as it was recorded.

    The first frame after a reset is always run plainly: where moshi pads with the first sample it says that this
    was done by putting another tensor in the place of the old one, which a recording would not see.
    """

    def __init__(self, mimi: Any, run: Callable[[Tensor], Tensor]) -> None:
        self.mimi = mimi
        self.run = run
        self.recorded: Callable[[Tensor], Tensor] | None = None
        self.started = False

    def __call__(self, frame: Tensor) -> Tensor:
        run = self.recorded if self.recorded and self.started else self.run
        self.started = True
        return run(frame)

    def record(self, frame: Tensor, pool: Any) -> None:
        """The state must not be that before a first frame."""
        self.recorded = record(_Streaming(self.mimi, self.run), frame, pool=pool)


class _Streaming(nn.Module):
    """``run`` with moshi's streaming state as buffers: any other tensor is a constant to a recording."""

    def __init__(self, mimi: Any, run: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.mimi = mimi
        self.run = run
        for i, tensor in enumerate(_tensors(mimi.get_streaming_state().values())):
            self.register_buffer(f"state_{i}", tensor, persistent=False)

    def forward(self, frame: Tensor) -> Tensor:
        return self.run(frame)


def _tensors(states: Iterable[Any]) -> Iterator[Tensor]:
    """All tensors that these objects hold, and the objects that they hold."""
    for state in states:
        if isinstance(state, Tensor):
            yield state
        elif hasattr(state, "__dict__") and not isinstance(state, nn.Module):
            yield from _tensors(vars(state).values())


def build_mimi(config: ModelConfig) -> Any:
    """The Mimi network of ``config``, not yet loaded, set to the number of codebooks that the LM uses.

    Raises ConfigError for a section mimi that makes no codec for this LM, and MissingDependencyError.
    """
    loaders = _moshi().models.loaders
    codebooks = max(config.dep_q, config.user_q)
    try:
        mimi = loaders.get_mimi(None, config.mimi, torch.get_default_device(), codebooks)
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise ConfigError(
            f"section mimi of config.yaml describes no Mimi codec of {codebooks} codebooks: {error!r}"
        ) from error
    if (mimi.sample_rate, mimi.frame_size, mimi.cardinality) != (SAMPLE_RATE, FRAME_SIZE, config.audio_card):
        raise ConfigError(
            f"section mimi of config.yaml is a codec of {mimi.sample_rate} Hz, {mimi.frame_size} samples a "
            f"frame and {mimi.cardinality} codes; the LM needs {SAMPLE_RATE} Hz, {FRAME_SIZE} samples and "
            f"{config.audio_card} codes (audio_card)"
        )
    return mimi


def released_layout(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of moshi's Mimi to the names of the released file, which moshi reads too."""
    return {
        name.replace(".in_projs.0.weight", ".in_proj_weight").replace(".out_projs.0.", ".out_proj."): tensor
        for name, tensor in state.items()
    }


def _moshi() -> Any:
    try:
        import moshi.models.loaders
    except ImportError as error:
        raise MissingDependencyError(
            f"the Mimi codec needs the moshi library ({error}): "
            "pip install --no-deps moshi==0.2.13; pip install einops sentencepiece 'huggingface_hub<1'"
        ) from error
    return moshi
