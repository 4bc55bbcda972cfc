"""In how many ways one asks: the phrasings of every question, those of the test apart, and small talk with its answers."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Phrasings:
    train: tuple[str, ...]
    test: tuple[str, ...]

    def draw(self, rng: random.Random, held_out: bool, **words: str) -> str:
        return rng.choice(self.test if held_out else self.train).format(**words)


# Phrasings for the test are put together from words that training has in other questions.
COLOUR = Phrasings(
    (
        "What colour is the {kind}?",
        "And what colour is the {kind}?",
        "What is the colour of the {kind}?",
        "Tell me the colour of the {kind}.",
        "And tell me the colour of the {kind}.",
        "Please tell me, what colour is the {kind}?",
    ),
    ("Please tell me the colour of the {kind}.", "And what is the colour of the {kind}?"),
)
THING = Phrasings(
    (
        "What is the {colour} thing?",
        "And what is the {colour} thing?",
        "Tell me what the {colour} thing is.",
    ),
    ("Please tell me what the {colour} thing is.",),
)
PLACE = Phrasings(
    (
        "Where is the {kind}?",
        "Where do you see the {kind}?",
        "Tell me where the {kind} is.",
        "Please tell me where the {kind} is.",
        "Tell me, where is the {kind}?",
        "Tell me, where do you see the {kind}?",
    ),
    ("And where is the {kind}?", "And where do you see the {kind}?"),
)
NUMBER = Phrasings(
    (
        "How many {kinds} do you see?",
        "How many {kinds} are there?",
        "And how many {kinds} do you see?",
        "Please tell me how many {kinds} there are.",
        "Please tell me how many {kinds} you see.",
        "Tell me, how many {kinds} do you see?",
    ),
    ("And how many {kinds} are there?", "Tell me how many {kinds} there are."),
)
PRESENCE = Phrasings(
    (
        "Is there {a} {what}?",
        "Do you see {a} {what}?",
        "And do you see {a} {what}?",
        "Tell me, is there {a} {what}?",
    ),
    ("And is there {a} {what}?", "Tell me, do you see {a} {what}?"),
)
IS_IT = Phrasings(
    (
        "Is the {kind} {colour}?",
        "And is the {kind} {colour}?",
        "And tell me, is the {kind} {colour}?",
        "Please tell me, is the {kind} {colour}?",
    ),
    ("Tell me, is the {kind} {colour}?",),
)
DESCRIBE = Phrasings(
    (
        "What do you see?",
        "And what do you see?",
        "What is on the table?",
        "Tell me what is on the table.",
        "What do you see on the table?",
        "Tell me what you see.",
        "And tell me what you see.",
        "Describe the picture.",
        "And describe the picture.",
    ),
    ("Please tell me what you see.", "And what is on the table?", "Please describe the picture."),
)
TEACHER = Phrasings(
    (
        "What is {place}?",
        "What do you see {place}?",
        "You are the student. What is {place}?",
        "I am the teacher. Tell me what you see {place}.",
    ),
    ("And what is {place}?", "I am the teacher. What do you see {place}?"),
)

SMALL_TALK: tuple[tuple[Phrasings, str], ...] = (
    (
        Phrasings(
            ("Hello.", "Hello robot.", "Good morning.", "Hi, good morning."), ("Hello, good morning.",)
        ),
        "Hello, nice to meet you.",
    ),
    (
        Phrasings(
            ("How are you?", "How are you today?", "How do you feel today?"), ("And how are you today?",)
        ),
        "I am fine, thank you.",
    ),
    (
        Phrasings(
            ("What is your name?", "Tell me your name.", "Who are you?"), ("Please tell me your name.",)
        ),
        "My name is Moshi.",
    ),
    (
        Phrasings(("Thank you.", "Thanks a lot.", "Thank you robot."), ("Thanks a lot robot.",)),
        "You are welcome.",
    ),
    (
        Phrasings(
            ("Do you like music?", "Tell me, do you like music?", "What music do you like?"),
            ("And do you like music?",),
        ),
        "Yes, I love every song.",
    ),
    (
        Phrasings(("Can you sing?", "Can you sing a song?", "Sing a song for me."), ("Please sing a song.",)),
        "Sorry, I only talk.",
    ),
    (
        Phrasings(
            ("Are you a robot?", "And are you a robot?", "Are you a human?", "Are you a machine?"),
            ("Tell me, are you a robot?",),
        ),
        "I am a small robot.",
    ),
    (
        Phrasings(
            ("How old are you?", "Tell me how old you are.", "What is your age?"), ("And how old are you?",)
        ),
        "I am very young.",
    ),
    (
        Phrasings(
            ("Where do you live?", "Tell me where you live.", "Where is your home?"),
            ("And where do you live?",),
        ),
        "I live inside this computer.",
    ),
    (
        Phrasings(
            ("How is the weather?", "How is the weather today?", "Tell me about the weather."),
            ("And how is the weather today?",),
        ),
        "It looks like sunshine.",
    ),
    (
        Phrasings(("Goodbye.", "Goodbye robot.", "See you tomorrow."), ("Goodbye, see you tomorrow.",)),
        "Goodbye, see you soon.",
    ),
    (
        Phrasings(
            ("Are you hungry?", "And are you hungry?", "Do you eat?", "What do you eat?"),
            ("Tell me, are you hungry?",),
        ),
        "No, I never eat.",
    ),
)
