"""The public API: a live spoken conversation about a picture that may change while it goes on.

conv = Conversation.load("kyutai/moshika-vis-pytorch-bf16", device="cuda")
conv.see(image)                  # [H, W, 3] uint8 RGB, any size; None to look away
for pcm in frames:               # float32 [1920] at 24 kHz, every 80 ms
    frame = conv.step(pcm)       # frame.pcm, frame.text, frame.gate, frame.index
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import moshivis_ros.model  # noqa: F401  before torch: it says how to install torch when it is missing

# isort: split
import torch

from moshivis_ros.audio import FRAME_SECONDS, FRAME_SIZE
from moshivis_ros.audio.voice import VOICE_COMMAND
from moshivis_ros.errors import ConfigError
from moshivis_ros.frame import Frame, check_pcm
from moshivis_ros.goals import Asking, Goals, Interrupt, Saying
from moshivis_ros.model.checkpoint import load_model, resolve
from moshivis_ros.model.codec import Codec
from moshivis_ros.model.device import BESIDE, STEP, computing, default_dtype, find_device, stream_of
from moshivis_ros.model.fit import Choice, choose
from moshivis_ros.model.image_encoder import check_image, preprocess
from moshivis_ros.model.lm import MoshiVis, reported_gate
from moshivis_ros.model.onnx_encoder import onnx_in_place_of
from moshivis_ros.model.stream import Stream
from moshivis_ros.model.tokenizer import Tokenizer
from moshivis_ros.options import Options
from moshivis_ros.renewal import Renewal
from moshivis_ros.sampling import Sampling
from moshivis_ros.vision.gate import GateNormaliser
from moshivis_ros.vision.image_cache import Picture
from moshivis_ros.vision.refresh_policy import Settings
from moshivis_ros.vision.view import ImageStatus, View

__all__ = ["Asking", "Conversation", "Frame", "Saying"]

SENTENCE_END = (".", "!", "?", "…")
PAUSE_FRAMES = 8  # frames (0.64 s) without text after which the model counts as silent


class Conversation:
    """One full-duplex conversation. ``step`` belongs to one thread; everything else may be called from
    any.
    """

    choice = Choice(None, None)  # the form that load() chose

    def __init__(
        self,
        model: MoshiVis,
        codec: Codec,
        tokenizer: Tokenizer,
        *,
        sampling: Sampling | None = None,
        seed: int | None = None,
        refresh: Settings | None = None,
        image_size: int | None = None,
        kv_cache: str | None = None,
        greet: bool = True,
        image_encoder: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]] | None = None,
        renew_after: float = 0.0,
        renew_keep: float = 10.0,
    ) -> None:
        self.config = model.config
        self._model = model
        self._device = model.llm.out_norm.alpha.device
        self._image_kv = image_encoder or model.image_kv
        self._codec = codec
        self._tokenizer = tokenizer
        self._image_size = image_size or self.config.image_size
        if self._image_size < self.config.siglip.patch_size:
            raise ConfigError(
                f"image_size {image_size} is smaller than one patch ({self.config.siglip.patch_size})"
            )
        room = self.config.image_tokens(self._image_size)
        self.renewal = Renewal(renew_after, renew_keep, self.config.context)
        if seed is None:
            seed = int(torch.seed() % 2**31)
        self._view = View(self._encode, refresh or Settings())
        self._lock = threading.Lock()  # held while the stream's buffers are in use
        self._clock = 0  # frames since loading: unlike the frame index it never goes back
        self._silent_frames = 0  # since the last text
        self._previous_gate: tuple[NDArray[np.float32], float, float]  # per layer, mean, normalised
        self._normaliser = GateNormaliser(self.config.gate_low, self.config.gate_high)
        with computing(self._device, STEP):
            self._stream = Stream(model, max_image_tokens=room, kv_cache=kv_cache, keep=self.renewal.keep)
            self._stream.set_sampling(sampling or Sampling(), seed)
            self._goals = Goals(self._stream, tokenizer, greet)
            self._start()
            self._warm_up()

    @classmethod
    def load(
        cls, name_or_folder: str | Path, options: Options | None = None, **single: Any
    ) -> Conversation:
        """Load a checkpoint: a folder, a Hugging Face repo id, which is downloaded once, or a file of either.

        ``options``, or ``single`` ones of them by their names (``device="cuda", seed=3``): see options.Options. What
        ``auto`` decided is in ``choice``. Raises CheckpointError, ConfigError or MissingDependencyError, each saying what
        to do.
        """
        options = replace(options or Options(), **single)
        device = find_device(options.device)
        dtype = default_dtype(device) if options.dtype == "auto" else getattr(torch, options.dtype)
        path = resolve(name_or_folder, options.revision, device, options.smallest_window)
        choice = choose(path, device, dtype, options.quantize, options.kv_cache)
        model = load_model(path, device, dtype, choice.quantize, choice.kv_cache, adapters=options.adapters)
        folder = path if path.is_dir() else path.parent
        size = options.image_size or model.config.image_size
        conversation = cls(
            model,
            Codec.load(folder, model.config, device),
            Tokenizer.load(folder, model.config),
            sampling=options.sampling,
            seed=options.seed,
            refresh=options.refresh,
            image_size=options.image_size,
            kv_cache=choice.kv_cache,
            image_encoder=onnx_in_place_of(model, folder, size) if options.image_encoder == "onnx" else None,
            renew_after=options.renew_after,
            renew_keep=options.renew_keep,
            greet=options.greet,
        )
        conversation.choice = choice
        return conversation

    @property
    def is_random(self) -> bool:
        """True for a checkpoint of random weights (``moshivis init``): it makes sounds, not sense."""
        return not self.config.trained

    @property
    def image_size(self) -> int:
        """Pixels of the square that pictures are resized to. It may be changed while talking, from one patch to
        what it was at the beginning: the fewer, the sooner is a picture encoded, and the less it costs a step.
        Raises ConfigError for another size, and with the ONNX image encoder, whose file is of one size.
        """
        return self._image_size

    @image_size.setter
    def image_size(self, pixels: int) -> None:
        too_large = self.config.image_tokens(pixels) > self._stream.buckets[-1]
        if pixels < self.config.siglip.patch_size or too_large:
            raise ConfigError(f"image_size {pixels} is less than one patch, or more than there is room for")
        if self._image_kv != self._model.image_kv:
            raise ConfigError(f"the exported image encoder is for {self._image_size} pixels only")
        self._image_size = pixels

    @property
    def device(self) -> torch.device:
        """What it computes on."""
        return self._device

    @property
    def image_status(self) -> ImageStatus:
        """The state of the image cache after the latest frame."""
        return self._view.status

    @property
    def image_in_cache(self) -> Picture | None:
        """The picture that the model sees, or None."""
        return self._view.shown

    def see(self, image: NDArray[np.uint8] | None, *, wait: bool = False, stamp: Any = None) -> None:
        """Talk about this picture [H, W, 3] uint8 RGB, whatever the refresh policy thinks; None: look away.

        Returns at once, and the picture is used from a later frame; ``wait=True`` blocks until it is in the
        cache. ``stamp`` (its time, say) comes back in ImageStatus. Raises ImageError for anything that is not
        such a picture.
        """
        if image is None:
            self._view.look_away()
        else:
            check_image(image)
            self._view.show(image.copy(), stamp, self._time)
        if wait:
            self.settle()

    def watch(self, image: NDArray[np.uint8], *, stamp: Any = None) -> None:
        """Offer a camera frame [H, W, 3] uint8 RGB: the refresh policy decides whether and when it is
        encoded.

        Cheap enough for every frame of a camera. The array is kept, not copied: do not change it afterwards.
        """
        check_image(image)
        self._view.watch(image, stamp, self._time)

    def refresh(self) -> None:
        """Take the newest camera frame into the cache as soon as possible, whatever the policy thinks."""
        self._view.request()

    def freeze(self, frozen: bool = True) -> None:
        """Keep the picture that is in the cache, whatever the camera shows."""
        self._view.freeze(frozen)

    def settle(self) -> None:
        """Block until no picture is on its way any more; what was, is in the cache."""
        self._view.wait()
        with self._lock, computing(self._device, STEP):
            self._view.swap(self._stream.set_image)

    def say(self, text: str, interrupt: Interrupt = "wait", uninterruptible: bool = False) -> Saying:
        """Say these words in the robot's own voice, with the steps that follow; returns at once.

        See Goals.say, and goals.py for who wins. Raises WordsError for words that the model cannot say, and names them.
        """
        return self._goals.say(text, interrupt, uninterruptible)

    def ask(self, text: str, alone: bool = False, voice_command: str = VOICE_COMMAND) -> Asking:
        """Have a text spoken into the robot's ear and collect the answer, with the steps that follow. See Goals.ask."""
        return self._goals.ask(text, alone, voice_command)

    def tune(self, sampling: Sampling, refresh: Settings, seed: int | None = None) -> None:
        """Change while talking how tokens are drawn, when it looks and (if given) the seed of what follows."""
        with self._lock, computing(self._device, STEP):
            self._stream.set_sampling(sampling, seed)
        self._view.settings = refresh

    def reset(self) -> None:
        """Start a new conversation. The picture stays; camera frames from before will not be looked at."""
        with self._lock, computing(self._device, STEP):
            self._start()

    def close(self) -> None:
        """Stop the image encoder's thread. The conversation must not be used afterwards."""
        self._view.close()

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def step(self, pcm: NDArray[np.float32]) -> Frame:
        """Hear one frame, float32 [1920] at 24 kHz, and answer with one.

        Raises AudioError for another shape or type and for samples that are not finite.
        """
        check_pcm(pcm)
        with self._lock, computing(self._device, STEP):
            self._view.swap(self._stream.set_image)
            heard, cut = self._goals.hear(pcm)
            with torch.no_grad():
                sound = torch.from_numpy(heard).to(self._device)[None, None]
                out = self._stream.step(self._codec.encode(sound))
                # Before the next recording runs: these tensors are its memory too.
                told = torch.cat((out.gates[0], reported_gate(out.gates), out.tokens[0, :1].float()))
                answer = (
                    self._codec.decode(out.tokens[:, 1:])[0, 0]
                    if self._stream.warm
                    else torch.zeros_like(sound[0, 0])
                )
                # One copy to the host for everything: gates, the reported gate, the text token, the sound.
                host = torch.cat((told, answer.float())).cpu().numpy()
        layers = self.config.num_layers
        gates, gate = host[:layers], float(host[layers])
        token, samples = int(host[layers + 1]), host[layers + 2 :]
        gates_of_text, gate_of_text, normalised_of_text = self._previous_gate
        text = self._text.push(token) if self._stream.warm else None
        text, samples = self._goals.speak(token, text, samples, normalised_of_text, self._view.status)
        self._silent_frames = 0 if text else self._silent_frames + 1
        self._normaliser, normalised = self._normaliser.update(gate, self._stream.has_image)
        # A text token comes out one step after the gate that was open while it was chosen.
        self._previous_gate = (gates.copy(), gate, normalised)
        pause = self._silent_frames == PAUSE_FRAMES
        self._view.decide(
            self._time,
            gate=normalised,
            speaking=self._silent_frames < PAUSE_FRAMES,
            phrase_end=pause or (text or "").endswith(SENTENCE_END),
        )
        if self.renewal.due(self._index, self._stream.steps, self._silent_frames, heard, samples):
            with self._lock, computing(self._device, STEP):  # after the answer: a GPU does it while that is played
                self._stream.renew()
        frame = Frame(
            self._index,
            samples,
            text,
            gate_of_text,
            gates_of_text,
            normalised_of_text,
            self._view.status,
            cut,
        )
        self._index += 1
        self._clock += 1
        return frame

    @property
    def _time(self) -> float:
        """Stream time in seconds; offline it runs as fast as the frames do."""
        return self._clock * FRAME_SECONDS

    def _start(self) -> None:
        """The state of one conversation, at its beginning."""
        self._stream.reset()
        self._codec.reset()
        self._goals.start()
        self._text = self._tokenizer.decoder()
        self._index = 0
        self._silent_frames = PAUSE_FRAMES
        self.renewal.begin()
        self._previous_gate = (np.zeros(self.config.num_layers, np.float32), 0.0, 0.0)
        self._normaliser = GateNormaliser(self.config.gate_low, self.config.gate_high)
        self._view.restart()

    def _warm_up(self) -> None:
        """Run every path once, so that the first frames of a conversation are as quick as all others."""
        self._stream.record()
        self._codec.record(self._stream.pool)
        size = self._image_size
        self._stream.set_image(self._encode(np.zeros((size, size, 3), np.uint8)))
        for bucket in (*self._stream.buckets, 0):
            self._stream.bucket = bucket
            for _ in range(self.config.max_delay + 2):
                self.step(np.zeros(FRAME_SIZE, np.float32))
        self._clock = 0
        self._start()

    def _encode(self, image: NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-attention keys and values of a picture, computed beside the stream."""
        pixels = preprocess(image, self._image_size)
        on_gpu = self._device.type == "cuda"
        with torch.no_grad(), computing(self._device, BESIDE):
            if on_gpu:  # from memory that is not paged it takes them by itself, and no thread waits
                pixels = pixels.pin_memory().to(self._device, non_blocking=True)
            kv = self._image_kv(pixels)
            if on_gpu:
                torch.cuda.current_stream().synchronize()
                for tensor in kv:  # the memory must outlive the copy into the cache on the other stream
                    tensor.record_stream(stream_of(self._device, STEP))
        return kv
