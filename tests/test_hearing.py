"""What the user said, and who is speaking: the detector, the recogniser, and what tells the robot's own voice from the user's."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hearing import OTHER, pause, spoken, whisper

from moshivis_ros.errors import CheckpointError, ConfigError
from moshivis_ros.hearing import FRAME_SECONDS, FRAME_SIZE
from moshivis_ros.hearing.command_list import CommandList, said_with
from moshivis_ros.hearing.detector import SpeechDetector
from moshivis_ros.hearing.own_voice import OwnVoice, level
from moshivis_ros.hearing.recogniser import LONGEST, Recogniser
from moshivis_ros.hearing.utterances import Utterance, Utterances

FRAME = round(FRAME_SECONDS * 1e9)  # nanoseconds


@pytest.fixture(scope="module")
def recogniser() -> Recogniser:
    return Recogniser(str(whisper()))


def user(text: str) -> np.ndarray:
    return spoken(text, rate=16000)


def robot(text: str) -> np.ndarray:
    return spoken(text, OTHER, rate=16000)


def silence(seconds: float) -> np.ndarray:
    return pause(seconds, 16000)


def said(words: str) -> list[str]:
    return re.findall(r"\w+", words.lower())


def listen(heard: np.ndarray, played: np.ndarray | None = None, every: float = 0.0) -> list[Utterance]:
    """What is found in sound at 16 kHz while `played` leaves the loudspeaker."""
    detector, utterances, own = SpeechDetector(), Utterances(pause=0.5, every=every), OwnVoice()
    found = []
    for n in range(len(heard) // FRAME_SIZE):
        part = slice(n * FRAME_SIZE, (n + 1) * FRAME_SIZE)
        if played is not None:
            own.play(n * FRAME, level(played[part]))
        probability = detector(heard[part])
        if own.is_own(n * FRAME, level(heard[part])):
            probability = 0.0
        found.append(utterances.push(n * FRAME, heard[part], probability))
    return [utterance for utterance in found if utterance]


def test_sentences_are_found_and_understood(recogniser: Recogniser) -> None:
    first, second = user("What do you see?"), user("Turn left.")
    sound = np.concatenate([silence(1), first, silence(1), second, silence(1)])
    rng = np.random.default_rng(0)
    found = listen(sound + 0.0005 * rng.standard_normal(len(sound)).astype(np.float32))
    assert [said(recogniser(utterance.sound).text) for utterance in found] == [said("what do you see"), said("turn left")]
    assert [(utterance.number, utterance.final) for utterance in found] == [(0, True), (1, True)]
    starts = 1.0, 2.0 + len(first) / 16000
    ends = starts[0] + len(first) / 16000, starts[1] + len(second) / 16000
    np.testing.assert_allclose([utterance.start / 1e9 for utterance in found], starts, atol=0.25)
    np.testing.assert_allclose([utterance.end / 1e9 for utterance in found], ends, atol=0.25)
    assert all(recogniser(utterance.sound).confidence > 0.3 for utterance in found)


def test_noise_is_no_speech_and_has_no_words(recogniser: Recogniser) -> None:
    noise = 0.05 * np.random.default_rng(0).standard_normal(48000).astype(np.float32)
    noise[24000] = 0.9  # a click
    assert not listen(noise)
    assert recogniser(noise).text == "" and recogniser(silence(1)).text == ""


def test_what_goes_on_is_given_out_in_part() -> None:
    sound = np.concatenate([silence(0.5), user("Please tell me how many bottles you see, and where is the ball?"), silence(1)])
    parts = listen(sound, every=0.5)
    assert [part.final for part in parts] == [False] * (len(parts) - 1) + [True] and len(parts) >= 4
    assert {part.number for part in parts} == {0}
    sizes = [len(part.sound) for part in parts]
    assert sizes == sorted(sizes)


def test_who_does_not_stop_is_cut_where_the_recogniser_ends(recogniser: Recogniser) -> None:
    utterances = Utterances(pause=0.5, every=0)
    frames = [utterances.push(n * FRAME, np.zeros(FRAME_SIZE, np.float32), 1.0) for n in range(round(2.1 * LONGEST / FRAME_SECONDS))]
    found = [utterance for utterance in frames if utterance]
    assert [utterance.number for utterance in found] == [0, 1]
    assert all(abs(len(utterance.sound) / 16000 - LONGEST) < 0.1 for utterance in found)
    long = np.concatenate([silence(LONGEST), user("Turn left.")])
    assert said(recogniser(long).text)[-2:] == ["turn", "left"]


def in_a_room(played: np.ndarray, through: float) -> np.ndarray:
    """What a microphone hears of it, so many dB softer, 60 ms later."""
    rng = np.random.default_rng(0)
    room = rng.standard_normal(2400) * np.exp(-np.arange(2400) / 500)
    room /= np.sqrt((room**2).sum())
    echo = np.convolve(played, room)[: len(played)] * 10 ** (through / 20)
    return (np.roll(echo, 960) + 0.0005 * rng.standard_normal(len(played))).astype(np.float32)


@pytest.mark.parametrize("through", [-6, -20, -40])
def test_the_robots_own_voice_is_nobodys(through: float) -> None:
    one = np.concatenate([robot("I see a red ball and a green cup."), silence(1.5), robot("It is blue."), silence(1.5)])
    played = np.concatenate([silence(1), one, one])
    assert not listen(in_a_room(played, through), played)
    assert listen(in_a_room(played, through))  # which is speech to the detector


@pytest.mark.parametrize("through", [-20, -40])
def test_a_user_is_heard_over_the_robots_voice(recogniser: Recogniser, through: float) -> None:
    """From the second sentence on, when it is known how much of it comes through."""
    sentence = robot("I see a red ball and a green cup.")
    played = np.concatenate([silence(0.5), sentence, silence(1), sentence, sentence, silence(1.5)])
    heard = in_a_room(played, through)
    question, begin = user("Turn left."), 24000 + len(sentence) + 9600
    heard[begin : begin + len(question)] += question
    (found,) = listen(heard, played)
    assert said(recogniser(found.sound).text) == ["turn", "left"]


def test_what_is_missing_is_named_with_its_remedy(tmp_path: Path) -> None:
    code = "import sys; sys.modules['faster_whisper'] = None\nfrom moshivis_ros.hearing.detector import SpeechDetector\nSpeechDetector()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert "MissingDependencyError" in done.stderr and "pip install faster-whisper" in done.stderr
    with pytest.raises(CheckpointError, match="no model.bin"):
        Recogniser(str(tmp_path))
    with pytest.raises(CheckpointError, match="'huge.xx' .* cannot be loaded"):
        Recogniser("huge.xx")


COMMANDS = """
robot: /robot1
ignore: [please]
commands:
  turn:
    hear: ["turn {side}"]
    parts: {side: {left: 1, "to the right": -1}}
    publish: {topic: turn, type: std_msgs/msg/Float64, message: {data: "{side}"}}
  stop:
    stop: true
    hear: [stop]
    call: {service: stop, type: std_srvs/srv/Trigger}
"""


def commands(tmp_path: Path, text: str) -> CommandList:
    (tmp_path / "list.yaml").write_text(text)
    return CommandList(tmp_path / "list.yaml")


def test_a_command_is_the_whole_of_what_was_said(tmp_path: Path) -> None:
    found = commands(tmp_path, COMMANDS)
    assert (found.robot, found.confirm_within) == ("/robot1", 8.0)
    heard = found.match("Please turn to the right.")
    assert heard and heard.command.fields(heard.words) == {"data": -1}
    assert said_with("I turn {side}.", heard.words) == "I turn to the right."
    for text in ("turn", "turn right", "do not turn left", "turn left now", "turnleft", "{side}"):
        assert found.match(text) is None, text
    assert found.match("No, stop that!") == found.stops("stop") and found.stops("stopwatch") is None
    assert [found.answer(text) for text in ("Yes.", "Please, no.", "Yes or no?")] == [True, False, None]


@pytest.mark.parametrize(
    ("there", "instead", "words"),
    [
        ("commands:", "command:", "list.yaml:4: command: is unknown; known are robot, ignore, confirm_within, commands"),
        ("    hear: [stop]\n", "", "list.yaml:9: commands.stop: hear is missing"),
        ("hear: [stop]", "hear: [off]", "list.yaml:11: commands.stop.hear: False is nothing that can be said"),
        ("hear: [stop]", "hear: [please stop]", "list.yaml:11: commands.stop.hear: 'please stop' cannot be heard: please"),
        ("stop: true", "stop: soon", "list.yaml:10: commands.stop.stop: must be true or false, and is 'soon'"),
        ("stop: true", "stop: true\n    confirm: Really?", "list.yaml:11: commands.stop.confirm: cannot be with stop: true"),
        ("hear: [stop]", 'hear: ["stop {what}"]', "list.yaml:11: commands.stop.hear: there is no part {what} in parts"),
        ("left: 1", "yes: 1", "list.yaml:7: commands.turn.parts.side: True is nothing that can be said"),
        ('["turn {side}"]', "[turn]", "list.yaml:6: commands.turn.hear: 'turn' has no {side}"),
        ("call:", "goal:", "list.yaml:12: commands.stop.goal.service: is unknown; known are action, type, goal"),
        ("    call:", "    publish: {topic: a, type: b}\n    call:", "list.yaml:9: commands.stop: must have one of publish, call, goal"),
        ("commands:", "commands: [", "cannot be read"),
    ],
)
def test_what_is_wrong_with_a_list_is_named_by_line_and_key(tmp_path: Path, there: str, instead: str, words: str) -> None:
    assert there in COMMANDS
    with pytest.raises(ConfigError) as raised:
        commands(tmp_path, COMMANDS.replace(there, instead, 1))
    assert words in str(raised.value)
