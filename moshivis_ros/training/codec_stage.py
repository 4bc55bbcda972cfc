"""Training of a Mimi codec on synthetic speech: reconstruct the spectrum, and know the phoneme in codebook 1."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from moshivis_ros.errors import CheckpointError
from moshivis_ros.model.codec import FRAME_SIZE, SAMPLE_RATE, build_mimi, released_layout
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.training import dialogues, speakers
from moshivis_ros.training.train import Settings, network_of
from moshivis_ros.training.voices import Sound, Speech

PHONEMES = 64
HEARD_AT = (0.25, 0.75)  # codebook 1 tells the phonemes at these places of its frame
# What makes the codec know more than the dialogues: words with every sound of English.
OTHER_SENTENCES = (
    "The quick brown fox jumps over the lazy dog.",
    "She sells sea shells by the sea shore.",
    "A large size in stockings is hard to sell.",
    "The boy was there when the sun rose.",
    "Kick the ball straight and follow through.",
    "Glue the sheet to the dark blue background.",
    "These days a chicken leg is a rare dish.",
    "Four hours of steady work faced us.",
    "The juice of lemons makes fine punch.",
    "Help the woman get back to her feet.",
    "Press the pants and sew a button on the vest.",
    "The birch canoe slid on the smooth planks.",
    "Rice is often served in round bowls.",
    "The box was thrown beside the parked truck.",
    "A pot of tea helps to pass the evening.",
    "The swan dive was far short of perfect.",
    "Say it slowly but make it ring clear.",
    "The young girl gave no clear response.",
    "Nine men were hired to dig the ruins.",
    "Joy and pleasure usually measure the weather.",
)


@dataclass(frozen=True)
class Options:
    model: str  # config.yaml of the network that the codec is for
    batch: int = 4
    seconds: float = 1.2
    utterances: int = 2500
    commitment: float = 0.5
    phoneme: float = 1.0
    bypass_until: float = 0.08  # share of the steps without quantiser
    bypass_after: float = 0.15  # share of sequences without quantiser from then on, falling to 0
    start: str = ""  # out folder of an earlier run, finished or not, to go on from
    wanted: float = 0.75  # log-mel distance (see measure) of other speech above which the stage fails


class CodecStage:
    def __init__(self, settings: Settings) -> None:
        self.options = Options(**settings.options)
        self.bfloat16 = settings.bfloat16
        config = ModelConfig.load(self.options.model)
        self.config = config
        self.mimi = build_mimi(config)
        _initialise(self.mimi)
        width = self.mimi.quantizer.rvq_first.output_dimension
        heads = nn.Linear(width, len(HEARD_AT) * PHONEMES)
        self.network = nn.ModuleDict({"mimi": self.mimi, "phoneme": heads})
        if self.options.start:
            before = network_of(self.options.start)
            self.mimi.load_state_dict({n[5:]: t for n, t in before.items() if n.startswith("mimi.")})
        self.spectra = Spectra()
        rng = random.Random(f"corpus {settings.seed}")
        self.speeches = corpus(rng, self.options.utterances)
        symbols = sorted({symbol for speech in self.speeches for symbol, _ in speech.phonemes})
        self.symbols = {symbol: 1 + k % (PHONEMES - 1) for k, symbol in enumerate(symbols)}  # 0: silence
        minutes = sum(speech.seconds for speech in self.speeches) / 60
        print(f"{len(self.speeches)} utterances, {minutes:.0f} minutes, {len(symbols)} phonemes", flush=True)

    def groups(self) -> list[dict[str, Any]]:
        return [{"params": [p for p in self.network.parameters() if p.requires_grad]}]

    def losses(self, rng: random.Random, step: int, steps: int) -> dict[str, Tensor]:
        done = step / steps
        bypass = (
            1.0 if done < self.options.bypass_until else self.options.bypass_after * max(0.0, 1 - 1.1 * done)
        )
        frames = round(self.options.seconds * SAMPLE_RATE / FRAME_SIZE)
        noisy, clean, phonemes = zip(*(self._crop(rng, frames) for _ in range(self.options.batch)))
        target = torch.from_numpy(np.stack(clean))[:, None]
        labels = torch.tensor(phonemes)
        self.network.train()
        pcm = torch.from_numpy(np.stack(noisy))[:, None]
        out, commitment, semantic = forward(self.mimi, pcm, bypass, self.bfloat16)
        mel, stft = self.spectra(out[:, 0].float(), target[:, 0])
        scores = self.network["phoneme"](semantic.transpose(1, 2)).float().unflatten(-1, (-1, PHONEMES))
        guess = F.cross_entropy(scores.flatten(0, 2), labels.flatten())
        right = (scores.argmax(-1) == labels).float().mean()
        loss = mel + stft + self.options.commitment * commitment + self.options.phoneme * guess
        return {"loss": loss, "mel": mel.detach() / 4, "stft": stft.detach(), "phoneme": right}

    def finish(self, out: Path) -> None:
        self.mimi.eval()
        state = {
            name: tensor.contiguous() for name, tensor in released_layout(self.mimi.state_dict()).items()
        }
        save_file(state, out / self.config.mimi_codec)
        found = measure(self.mimi, corpus(random.Random("test"), 90))
        print(f"log-mel distance of other speech {found:.3f}", flush=True)
        if found > self.options.wanted:
            raise CheckpointError(
                f"the codec is not good enough (log-mel distance {found:.3f}, wanted {self.options.wanted}): "
                "train it longer"
            )

    def _crop(self, rng: random.Random, frames: int) -> tuple[Sound, Sound, list[list[int]]]:
        """A piece of an utterance with some silence around it, maybe with noise; the same without; its phonemes.

        Noise is heard but not to be said again: nobody could guess it, and the users' sound is only listened to.
        """
        speech = rng.choice(self.speeches)
        length = frames * FRAME_SIZE
        start = rng.randint(-length // 2, max(1, len(speech.pcm) - length // 3))
        clean = np.zeros(length, np.float32)
        low, high = max(0, start), min(len(speech.pcm), start + length)
        clean[low - start : high - start] = speech.pcm[low:high]
        clean *= rng.uniform(0.4, 1.3)
        noise = speakers.noise(rng, length, rng.choice(speakers.NOISE_LEVELS)) if rng.random() < 0.5 else 0
        labels = []
        for frame in range(frames):
            times = [(start + (frame + part) * FRAME_SIZE) / SAMPLE_RATE for part in HEARD_AT]
            labels.append([self._phoneme(speech, at) for at in times])
        return clean + noise, clean, labels

    def _phoneme(self, speech: Speech, at: float) -> int:
        spoken = [symbol for symbol, begin in speech.phonemes if begin <= at]
        return self.symbols[spoken[-1]] if 0 <= at < speech.seconds and spoken else 0


def corpus(rng: random.Random, utterances: int) -> list[Speech]:
    """Speech of the robot (a third) and of users."""
    texts = list(dialogues.sentences())
    speeches = []
    for k in range(utterances):
        text = rng.choice(OTHER_SENTENCES if k % 5 == 0 else texts)
        voice = speakers.ROBOT if k % 3 == 0 else speakers.user(rng)
        speeches.append(speakers.louder(voice.say(text), 0.6))
    return speeches


def forward(mimi: Any, pcm: Tensor, bypass: float, bfloat16: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Sound [B, 1, n] through the whole codec: sound again, commitment loss, codebook 1 as vectors [B, D, T].

    bypass: share of the sequences that go round the quantiser.
    """
    from moshi.utils.compile import no_compile

    with no_compile():
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            latent = mimi.encoder(pcm)
        (latent,) = mimi.encoder_transformer(latent.float())
        latent = mimi._to_framerate(latent)
        quantizer = mimi.quantizer
        for part in (quantizer.rvq_first, quantizer.rvq_rest):
            part.no_quantization_rate = bypass
        first = quantizer.rvq_first(latent, mimi.frame_rate)
        rest = quantizer.rvq_rest(latent, mimi.frame_rate)
        latent = mimi._to_encoder_framerate(first.x + rest.x)
        (latent,) = mimi.decoder_transformer(latent)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            out = mimi.decoder(latent)
    return out, first.penalty + rest.penalty, first.x


def _initialise(mimi: Any) -> None:
    """The residual branches of the transformers start audible: moshi's 0.01 is for deep ones."""
    for name, parameter in mimi.named_parameters():
        if name.endswith("layer_scale_1.scale") or name.endswith("layer_scale_2.scale"):
            nn.init.constant_(parameter, 0.3)


class Spectra:
    """Distance of two sounds in log-mel and log spectra at four resolutions."""

    def __init__(self) -> None:
        self.sizes = (256, 512, 1024, 2048)
        self.windows = [torch.hann_window(size) for size in self.sizes]
        self.mels = [mel_filters(size, min(80, size // 8)) for size in self.sizes]

    def __call__(self, out: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        mel, stft = out.new_zeros(()), out.new_zeros(())
        both = torch.cat((out, target))
        for size, window, filters in zip(self.sizes, self.windows, self.mels):
            spectrum = torch.stft(both, size, size // 4, window=window, return_complex=True)
            power = torch.view_as_real(spectrum).square().sum(-1)
            magnitude = (power + 1e-8).sqrt()
            x, y = magnitude.chunk(2)
            mel_x, mel_y = ((filters @ part + 1e-4).log() for part in (x, y))
            mel = mel + F.l1_loss(mel_x, mel_y)
            stft = stft + F.l1_loss((x + 1e-3).log(), (y + 1e-3).log()) * 0.25
            stft = stft + (x - y).norm() / (y.norm() + 1e-3) * 0.25
        return mel, stft


def mel_filters(size: int, bands: int) -> Tensor:
    """Triangular mel filters [bands, size / 2 + 1] for 24 kHz."""
    top = 2595 * math.log10(1 + SAMPLE_RATE / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, top, bands + 2) / 2595) - 1)
    bins = torch.linspace(0, SAMPLE_RATE / 2, size // 2 + 1)
    up = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    down = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    filters = torch.minimum(up, down).clamp(min=0)
    return filters / filters.sum(1, keepdim=True).clamp(min=1e-3)


def measure(mimi: Any, speeches: list[Speech]) -> float:
    """Log-mel distance of speech through the trained codec (mean of four resolutions)."""
    mimi.eval()
    spectra = Spectra()
    distances = []
    with torch.no_grad():
        for speech in speeches:
            length = len(speech.pcm) // FRAME_SIZE * FRAME_SIZE
            pcm = torch.from_numpy(speech.pcm[:length])[None, None]
            out, _, _ = forward(mimi, pcm, 0.0, False)
            distances.append(float(spectra(out[:, 0], pcm[:, 0])[0]) / 4)
    return float(np.mean(distances))
