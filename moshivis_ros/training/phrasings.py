"""In how many ways one asks: the phrasings of every question, those of the test apart, and small talk with its answers."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Phrasings:
    train: tuple[str, ...]
    test: tuple[str, ...]

    def draw(self, rng: random.Random, held_out: bool, **words: str) -> str:
        return rng.choice(self.test if held_out else self.train).format(**words)


# What one says before a question ("what is it?"), and before one that is told ("what it is.").
ASKING = ("", "And ", "Tell me, ", "Please tell me, ", "Robot, ", "So, ", "Okay, ", "Uh, ", "Well, ", "Hey robot, ")
TELLING = ("Tell me ", "And tell me ", "Please tell me ", "Can you tell me ", "I want to know ")
CHATTING = ("", "And ", "Tell me, ", "Robot, ", "Well, ", "Uh, ")


def _phrasings(
    test: tuple[str, ...], asked: Sequence[str], told: Sequence[str] = (), before: Sequence[str] = ASKING
) -> Phrasings:
    """Everything of ``asked`` and ``told`` after everything that one says before it, but not what is for the test."""
    drawn = [first + question for question in asked for first in before]
    drawn += [first + question for question in told for first in TELLING]
    capital = (re.sub(r"(^|\. )[a-z]", lambda begin: begin[0].upper(), one) for one in drawn)
    return Phrasings(tuple(one for one in capital if one not in test), test)


# Phrasings for the test are put together from words that training has in other questions.
COLOUR = _phrasings(
    ("Please tell me the colour of the {kind}.", "And what is the colour of the {kind}?"),
    ("what colour is the {kind}?", "what is the colour of the {kind}?", "which colour has the {kind}?"),
    ("the colour of the {kind}.", "what colour the {kind} is."),
)
THING = _phrasings(
    ("Please tell me what the {colour} thing is.",),
    ("what is the {colour} thing?", "what is {colour}?", "what kind of thing is {colour}?"),
    ("what the {colour} thing is.", "what is {colour}."),
)
PLACE = _phrasings(
    ("And where is the {kind}?", "And where do you see the {kind}?"),
    ("where is the {kind}?", "where do you see the {kind}?", "where can you see the {kind}?"),
    ("where the {kind} is.", "where you see the {kind}."),
)
NUMBER = _phrasings(
    ("And how many {kinds} are there?", "Tell me how many {kinds} there are."),
    ("how many {kinds} do you see?", "how many {kinds} are there?", "how many {kinds} can you see?"),
    ("how many {kinds} there are.", "how many {kinds} you see.", "the number of {kinds}."),
)
PRESENCE = _phrasings(
    ("And is there {a} {what}?", "Tell me, do you see {a} {what}?"),
    ("is there {a} {what}?", "do you see {a} {what}?", "can you see {a} {what}?"),
)
IS_IT = _phrasings(
    ("Tell me, is the {kind} {colour}?",), ("is the {kind} {colour}?", "is the {kind} a {colour} one?")
)
DESCRIBE = _phrasings(
    ("Please tell me what you see.", "And what is on the table?", "Please describe the picture."),
    (
        "what do you see?",
        "what is on the table?",
        "what do you see on the table?",
        "what can you see?",
        "what is there?",
        "describe the picture.",
        "describe what you see.",
    ),
    ("what is on the table.", "what you see.", "what you see on the table."),
)
TEACHER = _phrasings(
    ("And what is {place}?", "I am the teacher. What do you see {place}?"),
    ("what is {place}?", "what do you see {place}?", "what can you see {place}?"),
    ("what you see {place}.", "what is {place}."),
    before=(*ASKING, "You are the student. ", "I am the teacher. "),
)

SMALL_TALK: tuple[tuple[Phrasings, str], ...] = (
    (
        _phrasings(
            ("Hello, good morning.",),
            ("hello.", "good morning.", "good evening.", "hi.", "hello robot.", "hello there.", "hi robot."),
            before=("", "Hi, ", "Well, ", "Uh, "),
        ),
        "Hello, nice to meet you.",
    ),
    (
        _phrasings(
            ("And how are you today?",),
            ("how are you?", "how are you today?", "how do you feel today?", "how do you feel?", "are you well?"),
            before=CHATTING,
        ),
        "I am fine, thank you.",
    ),
    (
        _phrasings(
            ("Please tell me your name.",),
            ("what is your name?", "who are you?", "do you have a name?"),
            ("your name.", "who you are."),
            before=CHATTING,
        ),
        "My name is Moshi.",
    ),
    (
        _phrasings(
            ("Thanks a lot robot.",),
            ("thank you.", "thanks a lot.", "thank you robot.", "thanks.", "thank you very much.", "thanks robot."),
            before=("", "Okay, ", "Well, ", "Very good, "),
        ),
        "You are welcome.",
    ),
    (
        _phrasings(
            ("And do you like music?",),
            ("do you like music?", "what music do you like?", "do you love music?", "do you like to hear music?"),
            ("what music you like.",),
            before=CHATTING,
        ),
        "Yes, I love every song.",
    ),
    (
        _phrasings(
            ("Please sing a song.",),
            ("can you sing?", "can you sing a song?", "sing a song for me.", "sing for me.", "do you sing?"),
            before=("", "And ", "Robot, ", "Well, ", "Uh, ", "Please, "),
        ),
        "Sorry, I only talk.",
    ),
    (
        _phrasings(
            ("Tell me, are you a robot?",),
            ("are you a robot?", "are you a human?", "are you a machine?", "are you a computer?"),
            before=CHATTING,
        ),
        "I am a small robot.",
    ),
    (
        _phrasings(
            ("And how old are you?",),
            ("how old are you?", "what is your age?", "are you old?", "are you young?"),
            ("how old you are.", "your age."),
            before=CHATTING,
        ),
        "I am very young.",
    ),
    (
        _phrasings(
            ("And where do you live?",),
            ("where do you live?", "where is your home?", "where are you?"),
            ("where you live.", "where your home is."),
            before=CHATTING,
        ),
        "I live inside this computer.",
    ),
    (
        _phrasings(
            ("And how is the weather today?",),
            ("how is the weather?", "how is the weather today?", "is the weather good?", "is it a nice day?"),
            ("about the weather.", "how the weather is."),
            before=CHATTING,
        ),
        "It looks like sunshine.",
    ),
    (
        _phrasings(
            ("Goodbye, see you tomorrow.",),
            ("goodbye.", "goodbye robot.", "see you tomorrow.", "see you soon.", "bye bye.", "have a nice day."),
            before=("", "Okay, ", "Well, ", "Thanks and "),
        ),
        "Goodbye, see you soon.",
    ),
    (
        _phrasings(
            ("Tell me, are you hungry?",),
            ("are you hungry?", "do you eat?", "what do you eat?", "do you like to eat?"),
            ("what you eat.",),
            before=CHATTING,
        ),
        "No, I never eat.",
    ),
    (
        _phrasings(
            ("And what can you do?", "Tell me what you can do."),
            ("what can you do?", "what can I ask you?", "can you help me?", "what are you good for?"),
            ("what I can ask you.",),
            before=CHATTING,
        ),
        "I can tell you what I see.",
    ),
)

# Speech that is no question: what somebody in the room may say or ask about something else, and words of no language.
SOMEBODY = (
    "My brother;The old man;Our neighbour;A friend of mine;The driver;Her sister;His uncle;The doctor;A young woman;"
    "Their son;The farmer;Nobody here;The postman;My cousin;Every child;The singer"
).split(";")
DOES = (
    "bought;forgot;painted;sold;repaired;carried;found;wrote about;lost;borrowed;wanted;hated;washed;paid for;opened;broke"
).split(";")
SOMETHING = (
    "a new car;the kitchen window;some bread;his bicycle;the long letter;two tickets;an umbrella;the front door;a cheap watch;"
    "fresh fish;the garden fence;her camera;three stamps;an old radio;the wooden bridge;warm gloves"
).split(";")
SOMETIME = (
    "yesterday;last week;in the winter;before lunch;at school;near the station;after the concert;on Sunday;every month;"
    "behind the church;for his mother;without a word;at half past nine;in a hurry;since Christmas;by the river"
).split(";")
ELSEWHERE = (
    "When does the train leave;Who won the match;Why is the shop closed;Have you seen my keys;Is dinner ready;Where did you park;"
    "How far is the airport;Which road goes north;Did the phone ring;Could you pass the salt;Should we wait outside;"
    "What time is the meeting;Who ate the cake;How much does it cost;Can we go home;Does anybody need a ticket"
).split(";")
FIRSTS, MIDDLES, LASTS = "b d f g h k l m n p r s sh t v w z br st fl".split(), "a e i o u ee oo ay or".split(), " n s l m r t k".split(" ")


def _word(rng: random.Random, half: int) -> str:
    """Two or three syllables that begin with every second of the sounds, from ``half`` on."""
    return "".join(
        rng.choice(FIRSTS[half::2]) + rng.choice(MIDDLES) + rng.choice(LASTS) for _ in range(rng.randint(2, 3))
    )


def _nothing_known(rng: random.Random, half: int) -> str:
    """With every second of the words, from ``half`` on."""
    draw = rng.random()
    if draw < 0.45:
        return " ".join(rng.choice(words[half::2]) for words in (SOMEBODY, DOES, SOMETHING, SOMETIME)) + "."
    if draw < 0.6:
        return f"{rng.choice(ELSEWHERE[half::2])} {rng.choice(SOMETIME[half::2])}?"
    return " ".join(_word(rng, half) for _ in range(rng.randint(2, 6))).capitalize() + "."


_rng = random.Random("unknown")
UNKNOWN = Phrasings(
    *(tuple(_nothing_known(_rng, half) for _ in range(count)) for half, count in enumerate((1200, 100)))
)
