"""Training of a Mimi codec: say again what the robot says, and know in codebook 1 the phonemes that anybody says.

The robot has one voice, so a small decoder is enough for it. Whoever speaks to it is only listened to: nothing of them is
decoded, and the sound of people, rooms and microphones costs the encoder alone.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from moshivis_ros.errors import CheckpointError, ConfigError
from moshivis_ros.model.checkpoint import resolve
from moshivis_ros.model.codec import FRAME_SIZE, SAMPLE_RATE, build_mimi, released_layout
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.weights import load_into
from moshivis_ros.training import acoustics, make_takes, speakers
from moshivis_ros.training.people import FliteVoice, aligned
from moshivis_ros.training.spectra import Spectra
from moshivis_ros.training.train import STATE, Settings, network_of
from moshivis_ros.training.utterances import FLITE_USER
from moshivis_ros.training.voices import Sound, Speech

PHONEMES = 64
SILENCE, OTHER = 0, PHONEMES - 1
HEARD_AT = (-0.25, 0.25)  # codebook 1 tells the phonemes at these places of its frame: of what has been heard to its end
DECODER = ("mimi.decoder", "mimi.upsample")  # what comes after the tokens
KEPT_OUT = 20  # the takes of every so manieth text are kept for the check


@dataclass(frozen=True)
class Options:
    model: str  # config.yaml of the network that the codec is for
    robot: str  # folder of make_takes --robot
    people: str  # folder of make_takes
    start: str = ""  # to go on from: out folder of an earlier run, finished or not, or a checkpoint
    train: str = "all"  # or decoder: what the tokens mean stays
    said: int = 2  # pieces of a step that the robot says
    heard: int = 8  # and that anybody says
    seconds: float = 1.2
    spoken: int = 500  # utterances of espeak, and of flite
    commitment: float = 0.5
    phoneme: float = 2.0
    bypass_until: float = 0.08  # share of the steps without quantiser
    bypass_after: float = 0.15  # share of sequences without quantiser from then on, falling to 0
    wanted: float = 0.6  # log-mel distance (see measure) of the robot's speech above which the stage fails
    wanted_phonemes: float = 0.55  # share of the phonemes of other takes below which it fails


class CodecStage:
    def __init__(self, settings: Settings) -> None:
        self.options = options = Options(**settings.options)
        if options.train not in ("all", "decoder"):
            raise ConfigError(f"train must be all or decoder, not {options.train!r}")
        self.bfloat16 = settings.bfloat16
        self.config = ModelConfig.load(options.model)
        self.mimi = self._mimi()
        width = self.mimi.quantizer.rvq_first.output_dimension
        heads = nn.Linear(width, len(HEARD_AT) * PHONEMES)
        self.network = nn.ModuleDict({"mimi": self.mimi, "phoneme": heads})
        self.spectra = Spectra()
        self.robot, self.test_robot = _takes(options.robot)
        self.people, self.test_people = _takes(options.people)
        if options.train == "decoder":
            for name, parameter in self.network.named_parameters():
                parameter.requires_grad_(name.startswith(DECODER))
        rng = random.Random(f"codec {settings.seed}")
        asked = make_takes.asked()
        self.espeak = [speakers.user(rng).say(rng.choice(asked)) for _ in range(options.spoken)]
        self.flite = [_flite(rng, rng.choice(asked)) for _ in range(options.spoken)]
        # Not those of the takes: more of them may be there when the stage goes on.
        symbols = sorted({symbol for speech in self.espeak for symbol, _ in speech.phonemes})[: PHONEMES - 2]
        self.symbols = {symbol: 1 + k for k, symbol in enumerate(symbols)}
        print(f"{len(self.robot)} takes of the robot, {len(self.people)} of people, {len(symbols)} phonemes", flush=True)

    def groups(self) -> list[dict[str, Any]]:
        return [{"params": [p for p in self.network.parameters() if p.requires_grad]}]

    def losses(self, rng: random.Random, step: int, steps: int) -> dict[str, Tensor]:
        options, done = self.options, step / steps
        fresh = not options.start and done < options.bypass_until
        bypass = 1.0 if fresh else options.bypass_after * max(0.0, 1 - 1.1 * done)
        frames = round(options.seconds * SAMPLE_RATE / FRAME_SIZE)
        said = [self._said(rng, frames) for _ in range(options.said)]
        heard = [self._heard(rng, frames) for _ in range(options.heard)]
        sounds, phonemes = zip(*(one[1:] for one in said), *heard)
        target = torch.from_numpy(np.stack([clean for clean, _, _ in said]))
        labels = torch.tensor(phonemes)
        self.network.train()
        self.mimi.quantizer.train(options.train == "all")
        pcm = torch.from_numpy(np.stack(sounds))[:, None]
        out, commitment, semantic = forward(self.mimi, pcm, options.said, bypass, self.bfloat16)
        mel, stft = self.spectra(out[:, 0].float(), target)
        scores = self._phonemes(semantic)
        guess = F.cross_entropy(scores.flatten(0, 2), labels.flatten())
        theirs = labels[options.said :]
        hit = scores[options.said :].argmax(-1) == theirs
        loss = mel + stft + options.commitment * commitment + options.phoneme * guess
        shown = {"mel": mel.detach() / 4, "stft": stft.detach(), "guess": guess.detach()}
        if (theirs > 0).any():
            shown["right"] = hit[theirs > 0].float().mean()
        return {"loss": loss, **shown}

    def finish(self, out: Path) -> None:
        self.mimi.eval()
        state = {
            name: tensor.contiguous() for name, tensor in released_layout(self.mimi.state_dict()).items()
        }
        save_file(state, out / self.config.mimi_codec)
        distance = measure(self.mimi, self.test_robot)
        told, poor = f"log-mel distance of other sentences {distance:.3f}", distance > self.options.wanted
        if self.options.train == "all":  # else the heads have learned nothing
            right = self.phonemes_right(self.test_people)
            told, poor = f"{told}, phonemes of other takes {100 * right:.1f} %", poor or right < self.options.wanted_phonemes
        print(told, flush=True)
        if poor:
            raise CheckpointError(
                f"the codec is not good enough ({told}; wanted {self.options.wanted} and "
                f"{100 * self.options.wanted_phonemes:.0f} %): train it longer"
            )

    @torch.no_grad()
    def phonemes_right(self, speeches: list[Speech]) -> float:
        """Share of the spoken phonemes that codebook 1 tells, of recordings as they are."""
        hits: list[bool] = []
        for speech in speeches:
            frames = len(speech.pcm) // FRAME_SIZE
            pcm = torch.from_numpy(0.5 * speech.pcm[: frames * FRAME_SIZE])[None, None]
            semantic = self.mimi.quantizer.rvq_first(latents(self.mimi, pcm, False), self.mimi.frame_rate).x
            best = self._phonemes(semantic)[0].argmax(-1)
            labels = torch.tensor(self._labels(speech, 0, frames))
            hits += (best == labels)[labels > 0].tolist()
        return float(np.mean(hits))

    def _mimi(self) -> Any:
        options = self.options
        if options.start and not (Path(options.start) / STATE).exists():
            with torch.device("meta"):
                mimi = build_mimi(self.config)
            path = resolve(options.start) / self.config.mimi_codec
            return load_into(mimi, path, released_layout(mimi.state_dict()), "cpu", torch.float32).requires_grad_(True)
        mimi = build_mimi(self.config)
        _initialise(mimi)
        if options.start:
            before = network_of(options.start)
            mimi.load_state_dict({n[5:]: t for n, t in before.items() if n.startswith("mimi.")})
        return mimi

    def _phonemes(self, semantic: Tensor) -> Tensor:
        """Scores [B, T, places, PHONEMES] of codebook 1 as vectors [B, D, T]."""
        scores: Tensor = self.network["phoneme"](semantic.transpose(1, 2)).float()
        return scores.reshape(*scores.shape[:2], len(HEARD_AT), PHONEMES)

    def _said(self, rng: random.Random, frames: int) -> tuple[Sound, Sound, list[list[int]]]:
        """A piece of what the robot says with some silence around it; the same, maybe in noise; its phonemes.

        Noise is heard but not to be said again: nobody could guess it.
        """
        speech = rng.choice(self.robot)
        start, clean = _piece(rng, speech, frames)
        clean *= rng.uniform(0.5, 1.3)
        noise = speakers.noise(rng, len(clean), rng.choice(speakers.NOISE_LEVELS)) if rng.random() < 0.3 else 0
        return clean, clean + noise, self._labels(speech, start, frames)

    def _heard(self, rng: random.Random, frames: int) -> tuple[Sound, list[list[int]]]:
        """A piece of what somebody says somewhere, and its phonemes."""
        source = rng.choices((self.people, self.flite, self.espeak), (6, 2, 2))[0]
        level = speakers.LOUDER_LEVELS[acoustics.level(rng)]
        speech = acoustics.heard(rng, rng.choice(source), level)
        start, pcm = _piece(rng, speech, frames)
        return pcm + speakers.noise(rng, len(pcm), level), self._labels(speech, start, frames)

    def _labels(self, speech: Speech, start: int, frames: int) -> list[list[int]]:
        begins = np.array([begin for _, begin in speech.phonemes])
        times = (start + (np.arange(frames)[:, None] + HEARD_AT) * FRAME_SIZE) / SAMPLE_RATE
        places = np.searchsorted(begins, times, side="right") - 1
        return [
            [
                self.symbols.get(speech.phonemes[k][0], OTHER) if k >= 0 and 0 <= at < speech.seconds else SILENCE
                for k, at in zip(row, when)
            ]
            for row, when in zip(places, times)
        ]


def _takes(folder: str) -> tuple[list[Speech], list[Speech]]:
    """What is learned from, and all takes of every so manieth text."""
    learned: list[Speech] = []
    kept: list[Speech] = []
    for k, (text, takes) in enumerate(make_takes.load(folder).items()):
        (learned if k % KEPT_OUT else kept).extend(aligned(text, take) for take in takes)
    return learned, kept


def _flite(rng: random.Random, text: str) -> Speech:
    return aligned(text, FliteVoice(FLITE_USER, rng.uniform(0.85, 1.2)).say(text))


def _piece(rng: random.Random, speech: Speech, frames: int) -> tuple[int, Sound]:
    """Where in ``speech`` a piece of so many frames begins, silence before and after included, and the piece."""
    length = frames * FRAME_SIZE
    start = rng.randint(-length // 2, max(1, len(speech.pcm) - length // 3))
    pcm = np.zeros(length, np.float32)
    low, high = max(0, start), min(len(speech.pcm), start + length)
    pcm[low - start : high - start] = speech.pcm[low:high]
    return start, pcm


def latents(mimi: Any, pcm: Tensor, bfloat16: bool) -> Tensor:
    """What is quantised of sound [B, 1, n]: [B, D, T]."""
    from moshi.utils.compile import no_compile

    with no_compile():
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            latent = mimi.encoder(pcm)
        (latent,) = mimi.encoder_transformer(latent.float())
        found: Tensor = mimi._to_framerate(latent)
    return found


def forward(mimi: Any, pcm: Tensor, said: int, bypass: float, bfloat16: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Sound [B, 1, n]: the first ``said`` of it through the whole codec [said, 1, n], commitment loss, codebook 1 of all as
    vectors [B, D, T].

    bypass: share of the sequences that go round the quantiser.
    """
    from moshi.utils.compile import no_compile

    latent = latents(mimi, pcm, bfloat16)
    quantizer = mimi.quantizer
    for part in (quantizer.rvq_first, quantizer.rvq_rest):
        part.no_quantization_rate = bypass
    first = quantizer.rvq_first(latent, mimi.frame_rate)
    rest = quantizer.rvq_rest(latent[:said], mimi.frame_rate)
    with no_compile():
        latent = mimi._to_encoder_framerate(first.x[:said] + rest.x)
        (latent,) = mimi.decoder_transformer(latent)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            out = mimi.decoder(latent)
    return out, first.penalty + rest.penalty, first.x


def _initialise(mimi: Any) -> None:
    """The residual branches of the transformers start audible: moshi's 0.01 is for deep ones."""
    for name, parameter in mimi.named_parameters():
        if name.endswith("layer_scale_1.scale") or name.endswith("layer_scale_2.scale"):
            nn.init.constant_(parameter, 0.3)


@torch.no_grad()
def measure(mimi: Any, speeches: list[Speech]) -> float:
    """Log-mel distance of speech through the trained codec (mean of four resolutions)."""
    mimi.eval()
    spectra = Spectra()
    distances = []
    for speech in speeches:
        length = len(speech.pcm) // FRAME_SIZE * FRAME_SIZE
        pcm = torch.from_numpy(speech.pcm[:length])[None, None]
        out, _, _ = forward(mimi, pcm, 1, 0.0, False)
        distances.append(float(spectra(out[:, 0], pcm[:, 0])[0]) / 4)
    return float(np.mean(distances))
