"""Can the speech be understood? Word error rates by a small recogniser of our own that knows words, not sentences.

It is trained, when it is first needed, on the robot's takes (training.make_takes --robot): its words in any order, so it
cannot hear a sentence into noise. Half of its recordings have gone through the codec whose sound it is to judge: it is
a recogniser for this codec's sound.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from rich.progress import track
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from moshivis_ros.errors import CheckpointError
from moshivis_ros.model.codec import FRAME_SIZE, SAMPLE_RATE
from moshivis_ros.model.weights import load_into
from moshivis_ros.training import acoustics, speakers
from moshivis_ros.training.dialogues import parts
from moshivis_ros.training.make_takes import Kept
from moshivis_ros.training.speakers import InParts
from moshivis_ros.training.spectra import mel_filters
from moshivis_ros.training.utterances import Takes, mimi_codes
from moshivis_ros.training.voices import Sound, Word

WINDOW, HOP, BANDS = 1024, SAMPLE_RATE // 100, 80
WIDTH = 128
FRAME = 0.04  # seconds
RECORDINGS, EPOCHS, BATCH = 3000, 6, 8

Recording = tuple[list[Word], Sound]
"""Words with their times, and their sound, float32 at 24 kHz."""


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


class Recogniser:
    """Sound to any sequence of ``words``: log-mel, two convolutions to 40 ms, a recurrence in both directions, CTC."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            front = nn.Sequential(
                nn.Conv1d(BANDS, WIDTH, 5, 2, 2), nn.GELU(), nn.Conv1d(WIDTH, WIDTH, 5, 2, 2), nn.GELU()
            )
            recurrence = nn.GRU(WIDTH, WIDTH, batch_first=True, bidirectional=True)
            out = nn.Linear(2 * WIDTH, 1 + len(self.words))  # 0: no word
        self.network = nn.ModuleDict({"front": front, "recurrence": recurrence, "out": out})

    @classmethod
    def load_or_train(cls, path: Path | str, mimi: Any, takes: Takes) -> Recogniser:
        """The recogniser of ``path``; trained on the robot's ``takes`` and written if it is not there or knows other words.

        Raises CheckpointError: the file.
        """
        path = Path(path)
        one = cls(sorted({word for text in takes for word in words_of(text)}))
        if not path.exists() or _words(path) != one.words:
            spoken = recordings(takes, RECORDINGS)
            half = spoken[: RECORDINGS // 2]
            coded = through(mimi, [sound for _, sound in half])
            spoken[: len(half)] = [(words, sound) for (words, _), sound in zip(half, coded)]
            one.train(spoken, EPOCHS)
            one.save(path)
        return cls.load(path)

    @classmethod
    def load(cls, path: Path) -> Recogniser:
        one = cls(_words(path))
        one.network = load_into(one.network, path, one.network.state_dict(), "cpu", torch.float32)
        return one

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(self.network.state_dict(), path, metadata={"words": json.dumps(self.words)})

    def features(self, sound: Tensor) -> Tensor:
        """Log-mel [B, bands, T] of sound [B, n], a frame every 10 ms; no matter how loud."""
        spectrum = torch.stft(sound, WINDOW, HOP, window=torch.hann_window(WINDOW), return_complex=True).abs()
        mel = (mel_filters(WINDOW, BANDS) @ spectrum + 1e-3).log()
        return mel - mel.mean((1, 2), keepdim=True)

    def scores(self, features: Tensor) -> Tensor:
        """Log-probabilities [B, T / 4, 1 + words]."""
        hidden = self.network["front"](features).transpose(1, 2)
        return F.log_softmax(self.network["out"](self.network["recurrence"](hidden)[0]), -1)

    @torch.no_grad()
    def __call__(self, pcm: Sound) -> list[str]:
        """The words of a sound at 24 kHz: the likeliest of every 40 ms, without repeats and silence."""
        best = self.scores(self.features(torch.from_numpy(pcm)[None])).argmax(-1)[0]
        return [self.words[k - 1] for k in best.unique_consecutive().tolist() if k]

    def train(self, recordings: Sequence[Recording], epochs: int) -> None:
        """Learn words from recordings: in the first epoch when each is said, then (CTC) only that it is."""
        order = sorted(recordings, key=lambda recording: len(recording[1]))
        batches = []
        for start in range(0, len(order), BATCH):
            said, sounds = zip(*order[start : start + BATCH])
            batches.append((said, self.features(_stack(sounds))))
        rng = random.Random(0)
        todo = [(epoch, *batch) for epoch in range(epochs) for batch in rng.sample(batches, len(batches))]
        optimizer = torch.optim.AdamW(self.network.parameters())
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=len(todo), pct_start=0.1)
        for epoch, said, features in track(todo, "training the recogniser of words"):
            scores = self.scores(features)
            if epoch == 0:
                loss = F.nll_loss(scores.transpose(1, 2), self._timed(said, scores.shape[1]))
            else:
                targets = torch.tensor([self._number(word) for words in said for word in words])
                lengths = torch.tensor([len(words) for words in said])
                frames = torch.full_like(lengths, scores.shape[1])
                loss = F.ctc_loss(scores.transpose(0, 1), targets, frames, lengths, zero_infinity=True)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            optimizer.step()
            schedule.step()

    def _number(self, word: Word) -> int:
        return 1 + self.words.index(word.text)

    def _timed(self, said: Sequence[Sequence[Word]], frames: int) -> Tensor:
        """Which word is said in each frame [B, T], 0: none, as is the last frame of a word."""
        targets = torch.zeros(len(said), frames, dtype=torch.long)
        for row, words in zip(targets, said):
            for word in words:
                first = round(word.start / FRAME)
                row[first : max(first + 1, round(word.end / FRAME) - 1)] = self._number(word)
        return targets


def _words(path: Path) -> list[str]:
    try:
        with safe_open(path, "pt") as file:
            return list(json.loads((file.metadata() or {})["words"]))
    except (OSError, SafetensorError, KeyError) as error:
        raise CheckpointError(f"{path} is no recogniser ({error!r}): delete it, and it is trained again") from error


def recordings(takes: Takes, count: int, seed: int = 0) -> list[Recording]:
    """Takes, most of them a little faster and higher or slower and lower, in silence or some noise."""
    rng = random.Random(f"recogniser {seed}")
    texts, found = sorted(takes), []
    for _ in range(count):
        text = rng.choice(texts)
        speech = rng.choice(takes[text])
        if rng.random() < 0.7:
            speech = acoustics.faster(speech, rng.uniform(0.93, 1.08))
        speech = speakers.louder(speech, rng.uniform(0.3, 0.8))
        before = rng.randrange(SAMPLE_RATE // 2)
        frames = -(-(before + len(speech.pcm)) // FRAME_SIZE) + rng.randint(1, 8)
        pcm = speakers.noise(rng, frames * FRAME_SIZE, rng.choice(speakers.NOISE_LEVELS))
        pcm[before : before + len(speech.pcm)] += speech.pcm
        shift = before / SAMPLE_RATE
        timed = [Word(said, one.start + shift, one.end + shift) for one in speech.words for said in words_of(one.text)]
        found.append((timed, pcm))
    return found


def through(mimi: Any, sounds: Sequence[Sound]) -> list[Sound]:
    """What the codec makes of sounds of whole frames."""
    order = sorted(range(len(sounds)), key=lambda k: len(sounds[k]))
    found: dict[int, Sound] = {}
    for start in range(0, len(order), BATCH):
        part = order[start : start + BATCH]
        with torch.no_grad():
            decoded = mimi_sound(mimi, mimi_codes(mimi, _stack([sounds[k] for k in part])[:, None]))
        found |= {k: decoded[row, : len(sounds[k])] for row, k in enumerate(part)}
    return [found[k] for k in range(len(sounds))]


@torch.no_grad()
def mimi_sound(mimi: Any, codes: Tensor) -> npt.NDArray[np.float32]:
    """Sound [B, T * 1920] of codes [B, K, T], wherever the codec is."""
    from moshi.utils.compile import no_compile

    with no_compile():
        sound: npt.NDArray[np.float32] = mimi.decode(codes.to(next(mimi.parameters()).device))[:, 0].cpu().numpy()
    return sound


def _stack(sounds: Sequence[Sound]) -> Tensor:
    """Sounds one under the other [B, n], silence behind the shorter ones."""
    return nn.utils.rnn.pad_sequence([torch.from_numpy(sound) for sound in sounds], batch_first=True)


def speech_line(
    recogniser: Recogniser, mimi: Any, robot: Kept, replies: Sequence[tuple[str, npt.NDArray[np.int64]]]
) -> str:
    """Word error rates of replies (own text, own codes [dep_q, T]), beside those of what must be good and bad.

    Frames without a code in every codebook (below 0) are left out, and so are replies without words. The voice has no
    takes of what only the model says, a sentence gone wrong: it is judged by the others.
    """
    replies = [(text, codes[:, (codes >= 0).all(0)]) for text, codes in replies if words_of(text)]
    if len({text for text, _ in replies}) < 2:
        return f"{len(replies)} replies: too few to say whether the speech can be understood"
    rng = random.Random(0)
    said = [words_of(text) for text, _ in replies]
    own = [recogniser(mimi_sound(mimi, torch.from_numpy(codes)[None])[0]) for _, codes in replies]
    other = [rng.choice([heard for text, heard in zip(said, own) if text != words]) for words in said]
    whole = [text for text, _ in replies if all(part in robot.takes for part in parts(text))]
    spoken = [InParts(robot).say(text).pcm for text in whole]
    voice = [recogniser(sound) for sound in spoken]
    coded = [recogniser(sound) for sound in through(mimi, spoken)]
    wanted = [words_of(text) for text in whole]
    pairs = ((said, own), (wanted, voice), (wanted, coded), (said, other))
    rates = [f"{100 * word_error_rate(list(zip(texts, heard))):.0f} %" for texts, heard in pairs]
    return (
        f"{len(replies)} replies, word error rate {rates[0]} of their own text; its voice with {len(whole)} of the same texts "
        f"{rates[1]}, after the codec {rates[2]}; another reply's sound {rates[3]} (recogniser of {len(recogniser.words)} words in "
        "any order, trained on this voice and this codec's sound)"
    )


def word_error_rate(pairs: Sequence[tuple[Sequence[str], Sequence[str]]]) -> float:
    """Of (what was said, what was recognised): errors by the number of words that were said."""
    return sum(_distance(said, heard) for said, heard in pairs) / max(1, sum(len(said) for said, _ in pairs))


def _distance(a: Sequence[str], b: Sequence[str]) -> int:
    row = list(range(len(b) + 1))
    for i, word in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != other))
    return row[-1]
