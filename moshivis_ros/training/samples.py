"""Dialogues as the 17 token streams of the network, in the forms that training mixes.

- written (the "speechless" samples of arXiv 2503.15633): a picture and text, no sound. All audio streams hold no token
  (-1). The user's words stand in the text stream, one piece a frame: a *written prompt*. The model's turn begins with the
  end-of-padding token, which is how it is told from the user's; the loss is on the model's turns only.
- heard: the question is sound in the user's streams, the model's own audio streams hold no token, its answer is text.
- spoken: question and answer are sound, as in a conversation. A word's text comes TEXT_AHEAD frames before its sound.
  What it is told to say (dialogues.told) comes after no question: which words, and when the first one, is not learned.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moshivis_ros.model.config import ModelConfig
from moshivis_ros.training.dialogues import DESCRIPTIONS, KINDS, TOLD, UNKNOWN_SPEECH, Exchange, parts
from moshivis_ros.training.spliced import Spliced
from moshivis_ros.training.utterances import Library, Utterance, join

NOTHING = -1
ALL = -1
TEXT_AHEAD = 2  # frames
RESPONSE = (2, 5)  # frames between the end of the question and the first word's text
INTERRUPTED = (4, 6)  # frames from the beginning of a question into an answer to the end of the answer
ECHO = (1, 4)  # frames by which the robot hears itself later
FORMS = ("written", "heard", "spoken")


@dataclass(frozen=True)
class Weights:
    """Of the text loss. key: words that make an answer right, in a description also whether and how it goes on after a
    thing; seen: other words of answers about the picture."""

    key: float = 6.0
    seen: float = 2.0
    other: float = 1.0
    padding: float = 0.2
    end_of_padding: float = 0.5


@dataclass
class Sample:
    """tokens: [1 + n_q, T]. weight: of the text loss. speaking: frames with own speech. seen: in answers, 1 about
    the picture, 0 about something else, -1 outside. turn: number of the exchange. thing: in descriptions, the place in
    Exchange.about of the thing that is named next, one too many after the last; ALL elsewhere."""

    tokens: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float32]
    speaking: npt.NDArray[np.bool_]
    seen: npt.NDArray[np.int8]
    turn: npt.NDArray[np.int8]
    thing: npt.NDArray[np.int8]
    heard: npt.NDArray[np.int64]  # [T] piece of the word that the user has just finished, NOTHING outside
    told: npt.NDArray[np.bool_]  # [T] frames in which only when the next piece comes is to be learned, not which


class Composer:
    """Puts exchanges together to a sample of ``frames`` frames; what does not fit is left out."""

    def __init__(
        self,
        config: ModelConfig,
        encode: Callable[[str], list[int]],
        library: Library | None,
        weights: Weights,
    ) -> None:
        self.config, self.encode, self.library, self.weights = config, encode, library, weights
        self._voice = Spliced(library.robot if library else {})

    def compose(
        self,
        rng: random.Random,
        form: str,
        exchanges: list[Exchange],
        frames: int,
        quiet: bool,
        interrupted: float = 0.0,
        echo: float = 0.0,
    ) -> Sample:
        """quiet: begin with a long silence. interrupted: share of the spoken answers into which the next question comes.
        echo: share of the samples in which the robot hears itself."""
        config = self.config
        tokens = np.full((1 + config.n_q, frames), NOTHING, np.int64)
        tokens[0] = config.padding_token_id
        weight = np.full(frames, self.weights.padding, np.float32)
        sample = Sample(
            tokens,
            weight,
            speaking=np.zeros(frames, bool),
            seen=np.full(frames, -1, np.int8),
            turn=np.zeros(frames, np.int8),
            thing=np.full(frames, ALL, np.int8),
            heard=np.full(frames, NOTHING),
            told=np.zeros(frames, bool),
        )
        at = rng.randint(10, max(10, frames // 2)) if quiet else rng.randint(1, 5)
        noise = rng.randrange(len(self.library.silence)) if self.library else 0
        if form != "written":
            self._fill(rng, sample, noise, own=form == "spoken")
        begin = at
        echoes = form == "spoken" and rng.random() < echo
        for number, exchange in enumerate(exchanges):
            after = at
            if number and exchange.question and rng.random() < interrupted and sample.speaking[begin:].any():
                whole = deepcopy(sample)
                at, after = self._interrupt(rng, sample, begin, noise)
            end = (
                self._written(rng, sample, exchange, at)
                if form == "written"
                else self._heard(rng, sample, exchange, at, noise, form == "spoken")
            )
            if end is not None and echoes:
                self._echo(rng, sample, exchange, at)
            if end is None:
                if after > at:  # nobody interrupts
                    sample = whole
                break
            begin = after
            sample.turn[begin:] = number
            at = end + (rng.randint(2, 8) if form == "written" else rng.randint(4, 14))
        if form != "written":
            self._damage(rng, sample.tokens[1 + config.dep_q :])
        return sample

    def _echo(self, rng: random.Random, sample: Sample, exchange: Exchange, at: int) -> None:
        """The answer that was put behind ``at`` comes back into the user's streams, a little later."""
        assert self.library is not None
        each = [self.library.echo.get(part) for part in parts(exchange.answer)]
        if all(each):
            back = join([rng.choice(known) for known in each if known])
            spoken = at + int(np.flatnonzero(sample.speaking[at:])[0]) + rng.randint(*ECHO)
            into = sample.tokens[1 + self.config.dep_q :, spoken : spoken + back.codes.shape[1]]
            into[:] = back.codes[:, : into.shape[1]]

    def _interrupt(self, rng: random.Random, sample: Sample, begin: int, noise: int) -> tuple[int, int]:
        """Cut the answer that is spoken from ``begin`` on: frames in which the user begins, and from which it is silent."""
        assert self.library is not None
        spoken = begin + np.flatnonzero(sample.speaking[begin:])
        start = int(rng.choice(spoken[: -INTERRUPTED[1]] if len(spoken) > INTERRUPTED[1] else spoken[:1]))
        stop = start + rng.randint(*INTERRUPTED)
        rest = sample.tokens[:, stop:]
        rest[0] = self.config.padding_token_id
        for streams, silence in ((slice(1, 1 + self.config.dep_q), 0), (slice(1 + self.config.dep_q, None), noise)):
            rest[streams] = _piece(rng, self.library.silence[silence], rest.shape[1])
        sample.weight[stop:] = self.weights.padding
        sample.weight[stop : stop + INTERRUPTED[0]] = self.weights.other
        sample.speaking[stop:], sample.told[stop:] = False, False
        sample.seen[stop:], sample.thing[stop:] = -1, ALL
        return start, stop

    def _damage(self, rng: random.Random, user: npt.NDArray[np.int64]) -> None:
        """Put random tokens among the user's [K, T], in place, so that no recording is learned by heart.

        Few in codebook 1, which tells the phonemes; in each of the others often none and sometimes nearly all.
        """
        shares = [0.1 * rng.random(), *(rng.random() ** 4 for _ in user[1:])]
        random_state = np.random.default_rng(rng.getrandbits(32))
        chosen = random_state.random(user.shape) < np.array(shares)[:, None]
        user[chosen] = random_state.integers(self.config.audio_card, size=int(chosen.sum()))

    def _fill(self, rng: random.Random, sample: Sample, noise: int, own: bool) -> None:
        """Silence on both sides."""
        assert self.library is not None
        frames, first_user = sample.tokens.shape[1], 1 + self.config.dep_q
        sample.tokens[first_user:] = _piece(rng, self.library.silence[noise], frames)
        if own:
            sample.tokens[1:first_user] = _piece(rng, self.library.silence[0], frames)

    def _written(self, rng: random.Random, sample: Sample, exchange: Exchange, at: int) -> int | None:
        prompt = self.encode(exchange.question)
        start = at + len(prompt) + rng.randint(1, 3)
        words = [self.encode(word) for word in exchange.answer.split()]
        times, t = [], start
        for pieces in words:
            times.append(t)
            t += len(pieces) + (rng.random() < 0.3)
        if t + 1 > sample.tokens.shape[1]:
            return None
        sample.tokens[0, at : at + len(prompt)] = prompt
        sample.weight[at : at + len(prompt)] = 0
        self._say(sample, exchange, words, times)
        return t

    def _heard(
        self, rng: random.Random, sample: Sample, exchange: Exchange, at: int, noise: int, own: bool
    ) -> int | None:
        assert self.library is not None
        frames, first_user = sample.tokens.shape[1], 1 + self.config.dep_q
        heard, length, start = None, 0, at + 1
        if exchange.kind != TOLD:
            heard = _like(rng, self.library.user[exchange.question], noise)
            length = heard.codes.shape[1]
            start = at + round(heard.end) + rng.randint(*RESPONSE)
        words = [self.encode(word) for word in exchange.answer.split()]
        said: Utterance | None = None
        if own:
            said = join([self._voice.draw(rng, part) for part in parts(exchange.answer)])
            begin = start + TEXT_AHEAD - int(said.words[0][1])
            times = [begin + int(when) - TEXT_AHEAD for _, when in said.words]
            end = begin + said.codes.shape[1]
        else:
            times, end = [], start
            for pieces in words:
                times.append(end)
                end += len(pieces) + (rng.random() < 0.4)
        times = _apart(times, words)
        if max(end, times[-1] + len(words[-1])) + 1 > frames or at + length > frames:
            return None
        if heard is not None:
            sample.tokens[first_user:, at : at + length] = heard.codes
        if heard is not None and exchange.kind != UNKNOWN_SPEECH:
            ends = [begun for _, begun in heard.words[1:]] + [heard.end]
            for (word, _), finished in zip(heard.words, ends):
                sample.heard[at + int(finished) + 1 : at + length + 2] = self.encode(word)[0]
        if said is not None:
            sample.tokens[1:first_user, begin:end] = said.codes
            sample.speaking[begin:end] = True
        self._say(sample, exchange, words, times)
        stop = times[-1] + len(words[-1])
        if exchange.kind == TOLD:
            sample.weight[times[0] - 1 : stop] = 0
            timed = slice(times[0] + len(words[0]), stop)
            sample.told[timed], sample.weight[timed] = True, self.weights.end_of_padding
        return max(end, stop, at + length)

    def _say(self, sample: Sample, exchange: Exchange, words: list[list[int]], times: list[int]) -> None:
        config, weights = self.config, self.weights
        text, stop = sample.tokens[0], times[-1] + len(words[-1])
        keys = {word for key in exchange.keys for word in key.split()}
        lists, named, since = exchange.kind in DESCRIPTIONS, 0, times[0]
        for word, pieces, when in zip(exchange.answer.lower().split(), words, times):
            if text[when - 1] == config.padding_token_id:
                text[when - 1] = config.end_of_text_padding_id
                sample.weight[when - 1] = max(sample.weight[when - 1], weights.end_of_padding)
            text[when : when + len(pieces)] = pieces
            sample.weight[when : when + len(pieces)] = weights.seen if exchange.seen else weights.other
            if word.strip(".,") in keys:
                sample.weight[when] = weights.key
            if lists and word == "and":
                sample.weight[when] = weights.key
            if lists and word.strip(".,") in KINDS:
                sample.weight[when : when + 2] = weights.key  # the thing; a comma, the end, or neither
                sample.thing[since : when + 1] = named
                named, since = named + 1, when + 1
                sample.thing[since:stop] = named
        sample.seen[times[0] : stop] = exchange.seen


def _apart(times: list[int], words: list[list[int]]) -> list[int]:
    """Later where a word's pieces would not be over yet."""
    free, apart = times[0], []
    for when, pieces in zip(times, words):
        apart.append(max(when, free))
        free = apart[-1] + len(pieces)
    return apart


def _piece(rng: random.Random, codes: npt.NDArray[np.int16], frames: int) -> npt.NDArray[np.int16]:
    long = np.tile(codes, (1, 1 + frames // codes.shape[1] + 1))
    start = rng.randrange(codes.shape[1])
    return long[:, start : start + frames]


def _like(rng: random.Random, utterances: list[Utterance], noise: int) -> Utterance:
    """One with the noise of the room if there is one."""
    return rng.choice([u for u in utterances if u.noise == noise] or utterances)
