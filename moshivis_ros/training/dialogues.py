"""What two speakers say about a picture: questions of the paper's kinds with their true answers, and small talk.

The kinds follow arXiv 2503.15633 (PROP, LOC, NUM, general description, LEAD, TNS, COMB). Every question has phrasings
for training and at least one that training never sees (phrasings.py).
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from moshivis_ros.training.phrasings import (
    COLOUR,
    DESCRIBE,
    IS_IT,
    NUMBER,
    PLACE,
    PRESENCE,
    SMALL_TALK,
    TEACHER,
    THING,
    UNKNOWN,
)

KINDS = ("ball", "box", "bottle", "cup")
COLOURS = ("red", "green", "blue", "yellow", "orange", "purple")
PLACES = ("on the left", "in the middle", "on the right")
NUMBERS = ("none", "one", "two", "three", "four")
MAX_THINGS = len(NUMBERS) - 1
UNKNOWN_SPEECH, TOLD = "unknown speech", "told"  # kinds that are no questions: see unknown() and told()
TOPICS = (*KINDS, *COLOURS, *(place.split()[-1] for place in PLACES))


@dataclass(frozen=True)
class Item:
    """A thing as one talks about it."""

    kind: str
    colour: str
    place: str

    def __str__(self) -> str:
        return f"{'an' if self.colour[0] in 'aeiou' else 'a'} {self.colour} {self.kind}"


View = tuple[Item, ...]
"""The things in a picture, from left to right."""


@dataclass(frozen=True)
class Exchange:
    """One question and its answer. kind: for the tables; seen: the answer is about the picture.

    keys: the words of the answer that make it right. about: which things of the view are asked for, in their order.
    """

    kind: str
    question: str
    answer: str
    keys: tuple[str, ...] = ()
    about: tuple[int, ...] = ()

    @property
    def topics(self) -> list[bool]:
        """Which of TOPICS the question names."""
        words = {word for w in re.findall(r"\w+", self.question) for word in (w, w[:-1], w[:-2])}
        return [topic in words for topic in TOPICS]

    @property
    def seen(self) -> bool:
        return self.kind not in ("small talk", UNKNOWN_SPEECH, TOLD)


def _a(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _plural(kind: str) -> str:
    return kind + ("es" if kind.endswith("x") else "s")


def _only(view: View) -> list[Item]:
    """The things that are the only one of their kind."""
    return [item for item in view if sum(other.kind == item.kind for other in view) == 1]


def _about(view: View, what: str) -> tuple[int, ...]:
    """The things to which "ball", "red" or "red ball" fits."""
    return tuple(k for k, item in enumerate(view) if set(what.split()) <= {item.kind, item.colour})


def _absent(view: View) -> list[str]:
    return [kind for kind in KINDS if all(item.kind != kind for item in view)]


def colour(rng: random.Random, view: View, held_out: bool) -> Exchange | None:
    if not (items := _only(view)):
        return None
    item = rng.choice(items)
    if rng.random() < 0.2:
        wrong = rng.choice([c for c in COLOURS if c != item.colour])
        said = rng.choice((item.colour, wrong))
        verdict = "yes" if said == item.colour else "no"
        answer = f"{verdict.capitalize()}, it is {item.colour}."
        question = IS_IT.draw(rng, held_out, kind=item.kind, colour=said)
        keys = (verdict, item.colour)
        return Exchange("colour", question, answer, keys, _about(view, item.kind))
    question = COLOUR.draw(rng, held_out, kind=item.kind)
    return Exchange("colour", question, f"It is {item.colour}.", (item.colour,), _about(view, item.kind))


def thing(rng: random.Random, view: View, held_out: bool) -> Exchange | None:
    items = [i for i in view if sum(other.colour == i.colour for other in view) == 1]
    if not items:
        return None
    item = rng.choice(items)
    question = THING.draw(rng, held_out, colour=item.colour)
    return Exchange("thing", question, f"It is a {item.kind}.", (item.kind,), _about(view, item.colour))


def place(rng: random.Random, view: View, held_out: bool) -> Exchange | None:
    if not (items := _only(view)):
        return None
    item = rng.choice(items)
    question = PLACE.draw(rng, held_out, kind=item.kind)
    keys = (item.place.split()[-1],)
    return Exchange("place", question, f"It is {item.place}.", keys, _about(view, item.kind))


def number(rng: random.Random, view: View, held_out: bool) -> Exchange | None:
    counts = {kind: sum(item.kind == kind for item in view) for kind in KINDS}
    draw = rng.random()
    about: tuple[int, ...] = ()
    if draw < 0.35:
        what, count = "things", len(view)
    else:  # as many twos and threes as ones and nones
        wanted = rng.choice(sorted(set(counts.values())))
        what = rng.choice([kind for kind, n in counts.items() if n == wanted])
        count, what, about = wanted, _plural(what), _about(view, what)
    question = NUMBER.draw(rng, held_out, kinds=what)
    return Exchange("number", question, f"I see {NUMBERS[count]}.", (NUMBERS[count],), about)


def presence(rng: random.Random, view: View, held_out: bool) -> Exchange | None:
    if rng.random() < 0.5 and view:
        item = rng.choice(view)
        what = rng.choice((item.kind, f"{item.colour} {item.kind}"))
        question = PRESENCE.draw(rng, held_out, a=_a(what), what=what)
        return Exchange("presence", question, "Yes, there is one.", ("yes",), _about(view, what))
    if rng.random() < 0.5 and view:  # right kind, wrong colour
        kind = rng.choice(view).kind
        there = {item.colour for item in view if item.kind == kind}
        what = f"{rng.choice([c for c in COLOURS if c not in there])} {kind}"
    elif absent := _absent(view):
        what = rng.choice(absent)
        if rng.random() < 0.5:
            what = f"{rng.choice(COLOURS)} {what}"
    else:
        return None
    question = PRESENCE.draw(rng, held_out, a=_a(what), what=what)
    return Exchange("presence", question, "No, there is none.", ("no",))


def misleading(rng: random.Random, view: View, held_out: bool) -> Exchange | None:
    if not (absent := _absent(view)):
        return None
    kind = rng.choice(absent)
    phrasings = rng.choice((COLOUR, PLACE, IS_IT))
    question = phrasings.draw(rng, held_out, kind=kind, colour=rng.choice(COLOURS))
    return Exchange("misleading", question, f"I do not see a {kind}.", ("not", "see"))


def describe(rng: random.Random, view: View, held_out: bool) -> Exchange:
    things = tuple(range(len(view)))
    return Exchange("describe", DESCRIBE.draw(rng, held_out), description(view), _names(view), things)


def teacher(rng: random.Random, view: View, held_out: bool) -> Exchange | None:
    where = rng.choice(PLACES)
    things = tuple(k for k, item in enumerate(view) if item.place == where)
    there = tuple(view[k] for k in things)
    question = TEACHER.draw(rng, held_out, place=where)
    return Exchange("teacher", question, description(there), _names(there), things)


def small_talk(rng: random.Random, view: View, held_out: bool) -> Exchange | None:
    phrasings, answer = rng.choice(SMALL_TALK)
    return Exchange("small talk", phrasings.draw(rng, held_out), answer, ())


def unknown(rng: random.Random, held_out: bool) -> Exchange:
    """Speech that is no question, and the answer to it."""
    return Exchange(UNKNOWN_SPEECH, UNKNOWN.draw(rng, held_out), "I did not understand.")


def told(rng: random.Random) -> Exchange:
    """What it is told to say, without a question: half of it answers, half words in an order that it never had."""
    if rng.random() < 0.5:
        return Exchange(TOLD, "", exchange(rng, random_view(rng)).answer)
    return Exchange(TOLD, "", rng.choice(told_sentences()))


@cache
def told_sentences() -> tuple[str, ...]:
    """600 sentences of 2 to 7 words of its answers in any order."""
    rng = random.Random("told")
    words = sorted({word.strip(".,") for _ in range(5000) for word in exchange(rng, random_view(rng)).answer.split()})
    found: list[str] = []
    while len(found) < 600:
        said = [word + "," * (rng.random() < 0.15) for word in rng.choices(words, k=rng.randint(2, 7))]
        if said[:2] != ["I", "see"]:  # spoken whole: see parts
            found.append(" ".join(said).rstrip(",") + ".")
    return tuple(found)


def description(view: View) -> str:
    if not view:
        return "I see nothing."
    names = [str(item) for item in view]
    return f"I see {', '.join(names[:-1]) + ' and ' if names[1:] else ''}{names[-1]}."


def parts(answer: str) -> list[str]:
    """What is spoken one after the other: "I see", and each thing or number; any other answer is one piece.

    The sound of a part must not tell what comes after it, or the model speaks before it looks: it chooses a number or
    the last thing by the sound that its own voice happens to take. So a part is spoken alike wherever it stands.
    """
    if not answer.startswith("I see"):
        return [answer]
    return re.findall(r"I see|(?:and )?an? \w+ \w+|\w+", answer)


def _names(view: View) -> tuple[str, ...]:
    return tuple(f"{item.colour} {item.kind}" for item in view) or ("nothing",)


DESCRIPTIONS = ("describe", "teacher")  # the kinds whose answer names one thing after the other
Ask = Callable[[random.Random, View, bool], "Exchange | None"]
QUESTIONS: dict[str, Ask] = {
    "colour": colour,
    "thing": thing,
    "place": place,
    "number": number,
    "presence": presence,
    "misleading": misleading,
    "describe": describe,
    "teacher": teacher,
    "small talk": small_talk,
}
WEIGHTS = {
    "colour": 6.0,
    "thing": 3.0,
    "place": 5.0,
    "number": 10.0,
    "presence": 5.0,
    "misleading": 3.0,
    "describe": 8.0,
    "teacher": 5.0,
    "small talk": 12.0,
}


def exchange(
    rng: random.Random, view: View, weights: dict[str, float] = WEIGHTS, held_out: bool = False
) -> Exchange:
    """A random question about ``view`` with its answer; ``held_out``: in a phrasing that training never sees."""
    while True:
        kind = rng.choices(list(weights), weights=list(weights.values()))[0]
        if (found := QUESTIONS[kind](rng, view, held_out)) is not None:
            return found


def dialogue(rng: random.Random, view: View, turns: int, held_out: bool = False) -> list[Exchange]:
    """A conversation that goes from the picture to something else and back (the context switch).

    Some begin with a general question and go into details from there (COMB).
    """
    said: list[Exchange] = [describe(rng, view, held_out)] if rng.random() < 0.25 else []
    while len(said) < turns:
        one = exchange(rng, view, held_out=held_out)
        if all(one.question != other.question for other in said):
            said.append(one)
    return said


def sentences() -> Sequence[str]:
    """Every sentence frame with every word that fits: the text that the tokenizer is made of."""
    rng = random.Random(0)
    found = {unknown(rng, False).answer}
    for _ in range(20000):
        view = random_view(rng)
        one = exchange(rng, view, held_out=rng.random() < 0.3)
        found.update((one.question, one.answer))
    return sorted(found)


def random_view(rng: random.Random) -> View:
    """Things without a picture, for text only."""
    places = sorted(rng.choices(range(len(PLACES)), k=rng.randint(0, MAX_THINGS)))
    return tuple(Item(rng.choice(KINDS), rng.choice(COLOURS), PLACES[k]) for k in places)
