"""What one asks about a picture in which there may be a robot: a thing that the miniature has a word for and never saw.

Its tokenizer has whole words only, so that a new thing must be called by one of them: it says "I am a small robot", and is
asked "Are you a robot?".
"""

from __future__ import annotations

import random
import re

from moshivis_ros.training import dialogues
from moshivis_ros.training.dialogues import COLOURS, KINDS, Exchange, Item, View
from moshivis_ros.training.phrasings import COLOUR, IS_IT, PLACE, PRESENCE

NEW = "robot"
THINGS = (*KINDS, NEW)
ABOUT_IT = ("colour", "thing", "place", "presence", "misleading", "describe", "teacher")
_CAPTION = re.compile(rf"an? ({'|'.join(COLOURS)}) ({'|'.join(THINGS)})")


def draw(rng: random.Random, kind: str, view: View, held_out: bool) -> Exchange | None:
    """A question of one of dialogues.QUESTIONS; where there is no robot, also about that."""
    if kind in ("presence", "misleading") and not has(view) and rng.random() < 0.5:
        return _absent(rng, kind, held_out)
    return dialogues.QUESTIONS[kind](rng, view, held_out)


def has(view: View) -> bool:
    """Is there a robot?"""
    return any(item.kind == NEW for item in view)


def about_it(exchange: Exchange) -> bool:
    """Is a robot asked for, or part of the answer?"""
    asked = re.sub(rf"^(Hey )?{NEW}, ", "", exchange.question, flags=re.IGNORECASE)  # who is spoken to
    return NEW in re.findall(r"\w+", f"{asked} {exchange.answer}")


def understood(caption: str) -> View:
    """The view of a caption, which is a dialogues.description(): it does not tell where the things are."""
    return tuple(Item(kind, colour, "") for colour, kind in _CAPTION.findall(caption))


def _absent(rng: random.Random, kind: str, held_out: bool) -> Exchange:
    if kind == "presence":
        what = rng.choice((NEW, f"{rng.choice(COLOURS)} {NEW}"))
        question = PRESENCE.draw(rng, held_out, a="an" if what[0] in "aeiou" else "a", what=what)
        return Exchange("presence", question, "No, there is none.", ("no",))
    phrasings = rng.choice((COLOUR, PLACE, IS_IT))
    question = phrasings.draw(rng, held_out, kind=NEW, colour=rng.choice(COLOURS))
    return Exchange("misleading", question, f"I do not see a {NEW}.", ("not", "see"))
