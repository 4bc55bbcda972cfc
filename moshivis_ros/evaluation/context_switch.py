"""The subject is changed, as in arXiv 2503.15633: are questions that have nothing to do with a picture answered as well when
there is one, and in the same voice? And does the gate close?
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from moshivis_ros.evaluation.asker import Asker
from moshivis_ros.evaluation.babillage import Sample
from moshivis_ros.evaluation.free_running import Reply, Turn
from moshivis_ros.evaluation.intelligibility import mimi_sound
from moshivis_ros.evaluation.metrics import vqa
from moshivis_ros.evaluation.metrics.prosody import Prosody, prosody
from moshivis_ros.training import speakers
from moshivis_ros.training.dialogues import Exchange
from moshivis_ros.training.voices import EspeakVoice, Voice


def context_switch(
    asker: Asker, form: str, about: Sequence[Sample], asked: Sequence[tuple[str, tuple[str, ...]]]
) -> list[str]:
    """The subject is changed: lines about answers to questions that have nothing to do with a picture, without one, with
    one, and after an answer about it; the gate inside and outside of answers about the picture; and the voice."""
    pairs = [(about[k % len(about)], one) for k, one in enumerate(asked)]
    names = {question: question for question, _ in asked}
    library = None
    if form == "spoken":
        voice: Voice = EspeakVoice(speakers.HELD_OUT_USER)
        said = {question: voice.say(question) for question in names}
        library = asker.library({**said, **{f"#{s.id}": s.speech() for s, _ in pairs}})
    first = [Exchange("about", f"#{s.id}" if library else s.question, "") for s, _ in pairs]
    then = [Exchange("unrelated", question, "") for _, (question, _) in pairs]
    seen = [asker.look(sample.picture) for sample, _ in pairs]
    ways = {
        "without a picture": [[Turn(e, None)] for e in then],
        "with a picture": [[Turn(e, tokens)] for e, tokens in zip(then, seen)],
        "after an answer about the picture": [
            [Turn(one, tokens), Turn(e, tokens)] for one, e, tokens in zip(first, then, seen)
        ],
    }
    lines = []
    for way, talks in ways.items():
        answers = asker.ask(talks, form, library)
        right = [
            vqa.exact_match_in_sentence(talk[-1].text, true) for talk, (_, (_, true)) in zip(answers, pairs)
        ]
        lines.append(f"unrelated questions {way}: {100 * np.mean(right):.0f} % right of {len(right)}")
        if len(talks[0]) == 2:
            inside, outside = ([g for talk in answers for g in talk[turn].gates] for turn in (0, 1))
            lines.append(
                f"gate in answers about the picture {_mean(inside)}, in those that are not {_mean(outside)}"
            )
        elif form == "spoken":
            spoken = [_prosody(asker, talk[-1]) for talk in answers if talk[-1].text]
            lines.append(f"voice {way}: {_of_voices(spoken)}")
    return lines


def _prosody(asker: Asker, reply: Reply) -> Prosody:
    own = reply.audio[:, (reply.audio >= 0).all(0)]
    sound = mimi_sound(asker.mimi, torch.from_numpy(own)[None].long())[0]
    return prosody(sound, len(reply.text.split()))


def _of_voices(spoken: Sequence[Prosody]) -> str:
    if not spoken:
        return "nothing was said"
    pitch, width, rate = (
        float(np.median([getattr(one, name) for one in spoken])) for name in ("pitch", "range", "rate")
    )
    return f"pitch {pitch:.0f} Hz, range {width:.1f} semitones, {rate:.1f} words a second (median of {len(spoken)})"


def _mean(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f}" if values else "-"
