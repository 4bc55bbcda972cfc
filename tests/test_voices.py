"""Voices of people: when they say what, how they are changed by rooms and microphones, and who is kept for judging."""

from __future__ import annotations

import ctypes
import ctypes.util
import random
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.torch import load_file

from moshivis_ros.training import acoustics, make_takes, speakers
from moshivis_ros.training.people import FliteVoice, aligned, trimmed
from moshivis_ros.training.vocoder import vocoded
from moshivis_ros.training.voices import SAMPLE_RATE, EspeakVoice, Sound, Speech, Word

CONFIG = Path(__file__).parents[1] / "moshivis_ros" / "training" / "configs" / "builtin"
TEXT = "Tell me, where is the purple bottle?"


def library_there(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


needs_espeak = pytest.mark.skipif(not library_there("libespeak-ng.so.1"), reason="no espeak-ng")
needs_flite = pytest.mark.skipif(not library_there("libflite_cmu_us_rms.so.1"), reason="no flite")


def tone(hertz: float, seconds: float = 1.0) -> Speech:
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    pcm = (0.5 * np.sin(2 * np.pi * hertz * times)).astype(np.float32)
    return Speech(pcm, (Word("a", 0.1, 0.5), Word("b", 0.5, 0.9)), (("a", 0.1), ("b", 0.5)))


def pitch(pcm: npt.NDArray[np.float32]) -> float:
    """Of a tone, in hertz."""
    spectrum = np.abs(np.fft.rfft(pcm * np.hanning(len(pcm))))
    return float(np.fft.rfftfreq(len(pcm), 1 / SAMPLE_RATE)[spectrum.argmax()])


def test_played_faster_the_pitch_rises_and_words_and_phonemes_come_earlier() -> None:
    faster = acoustics.faster(tone(200), 1.25)
    assert pitch(faster.pcm) == pytest.approx(250, abs=3)
    assert faster.seconds == pytest.approx(0.8, abs=0.001)
    assert faster.words[1].start == pytest.approx(0.4) and faster.words[1].end == pytest.approx(0.72)
    assert faster.phonemes == (("a", pytest.approx(0.08)), ("b", pytest.approx(0.4)))


def test_users_are_quiet_and_loud_but_above_the_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acoustics, "rooms", lambda: (np.array([1, 0, 0, 0.3], np.float32),))
    rng = random.Random(1)
    for level in speakers.LOUDER_LEVELS:
        peaks = [float(np.abs(acoustics.heard(rng, tone(300), level).pcm).max()) for _ in range(60)]
        assert min(peaks) == pytest.approx(max(0.02, 12 * level), rel=0.4)
        assert max(peaks) == pytest.approx(0.9, rel=0.3)


def test_a_room_echoes_as_long_as_it_should() -> None:
    pytest.importorskip("pyroomacoustics")
    for wanted in (0.2, 0.5):
        response = acoustics.room(random.Random(3), wanted)
        assert np.abs(response).argmax() < 0.01 * SAMPLE_RATE  # the direct sound comes first
        left = np.square(response[::-1]).cumsum()[::-1]
        decibels = 10 * np.log10(left / left[0])
        five, twenty = (int(np.flatnonzero(decibels < -x)[0]) for x in (5, 20))
        assert 4 * (twenty - five) / SAMPLE_RATE == pytest.approx(wanted, rel=0.45)


def test_a_vocoder_says_the_same_at_the_same_time_in_another_pitch_and_flatter() -> None:
    pyworld = pytest.importorskip("pyworld")

    def melody(pcm: Sound) -> npt.NDArray[np.float64]:
        pitch, _ = pyworld.harvest(pcm.astype(np.float64), SAMPLE_RATE)
        return np.log(pitch[pitch > 0])

    def loudness(pcm: Sound) -> npt.NDArray[np.float32]:
        return np.square(pcm[: len(pcm) // 480 * 480]).reshape(-1, 480).mean(1) ** 0.25

    seconds = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    phase = 2 * np.pi * np.cumsum(170 * np.exp(0.3 * np.sin(np.pi * seconds))) / SAMPLE_RATE  # 126 to 229 Hz
    loud = 0.2 * np.sin(3 * np.pi * seconds) ** 2
    pcm = loud * sum(np.cos(k * phase) / k for k in range(1, 16))
    said = Speech(pcm.astype(np.float32), (Word("a", 0.1, 0.5), Word("b", 0.5, 1.9)))
    made = [vocoded(random.Random(seed), said) for seed in range(6)]
    assert all(one.words == said.words and len(one.pcm) == len(said.pcm) for one in made)
    assert all(np.corrcoef(loudness(one.pcm), loudness(said.pcm))[0, 1] > 0.8 for one in made)
    pitches = [float(np.median(melody(one.pcm))) for one in made]
    assert max(pitches) - min(pitches) > 0.2
    spreads = [float(np.subtract(*np.percentile(melody(one.pcm), (90, 10)))) for one in made]
    assert np.median(spreads) < 0.8 * np.subtract(*np.percentile(melody(said.pcm), (90, 10)))


def test_what_was_said_is_kept(tmp_path: Path) -> None:
    said = tone(150)
    make_takes.write(tmp_path / "00000.npz", "a b", said)
    make_takes.write(tmp_path / "00001.npz", "a b", said)
    ((text, (one, other)),) = make_takes.load(tmp_path).items()
    assert text == "a b" and one.words == said.words
    assert np.abs(one.pcm - said.pcm).max() < 1e-4 and np.array_equal(one.pcm, other.pcm)


def test_silence_is_cut_off_and_the_words_keep_their_sound() -> None:
    loud, silence = tone(200).pcm, np.zeros(SAMPLE_RATE, np.float32)
    speech = trimmed(Speech(np.concatenate((silence, loud, silence)), (Word("a", 1.0, 2.0),)))
    assert speech.seconds == pytest.approx(1.06, abs=0.01)
    assert speech.words[0].start == pytest.approx(0.03, abs=0.01)


@needs_flite
def test_flite_says_when_each_word_comes() -> None:
    usual, slow = FliteVoice("rms").say(TEXT), FliteVoice("rms", 1.5).say(TEXT)
    assert [word.text for word in usual.words] == TEXT.split()
    assert all(a.end <= b.start + 1e-6 for a, b in zip(usual.words, usual.words[1:]))
    assert slow.seconds / usual.seconds == pytest.approx(1.5, rel=0.15)
    middles = [
        round((w.start + w.end) / 2 * SAMPLE_RATE) for w in usual.words if w.text != "me,"
    ]  # then a pause
    assert min(float(np.abs(usual.pcm[m - 1200 : m + 1200]).max()) for m in middles) > 0.03


@needs_espeak
@needs_flite
def test_a_voice_without_phonemes_gets_those_of_espeak_in_its_own_words_time() -> None:
    slow = trimmed(EspeakVoice("en-us", rate=110).say(TEXT))
    guessed = aligned(TEXT, Speech(slow.pcm, slow.words))
    # Pauses apart: whether espeak tells one more depends on what it has said before.
    ours, theirs = ([(s, t) for s, t in each.phonemes if not s.startswith("_")] for each in (guessed, slow))
    assert [s for s, _ in ours] == [s for s, _ in theirs]
    errors = [abs(a - b) for (_, a), (_, b) in zip(ours, theirs)]
    assert max(errors) < 0.04


@needs_espeak
@needs_flite
def test_the_decoder_learns_alone_when_the_tokens_must_stay(tmp_path: Path) -> None:
    """So a language model can learn them at the same time."""
    pytest.importorskip("pyroomacoustics")
    from moshivis_ros.training.train import Settings, train

    for who in ("robot", "people"):
        for k, text in enumerate(("Hello.", TEXT)):  # the first is for the check
            make_takes.write(tmp_path / who / f"{k:05}.npz", text, EspeakVoice("en-us+f3").say(text))
    options = {"model": str(CONFIG), "robot": str(tmp_path / "robot"), "people": str(tmp_path / "people")}
    options |= {"spoken": 2, "said": 1, "heard": 2, "wanted": 99.0, "wanted_phonemes": 0.0}  # type: ignore[dict-item]
    first, last = tmp_path / "first", tmp_path / "last"
    assert train(Settings("codec", str(first), steps=2, learning_rate=1e-3, options=options))
    options |= {"start": str(first), "train": "decoder", "heard": 0, "wanted_phonemes": 1.0}  # type: ignore[dict-item]
    assert train(Settings("codec", str(last), steps=2, learning_rate=1e-3, options=options))
    before, after = (load_file(folder / "mimi.safetensors") for folder in (first, last))
    changed = {name.split(".")[0] for name in before if not np.array_equal(before[name], after[name])}
    assert before.keys() == after.keys()
    assert "decoder" in changed and changed <= {"decoder", "decoder_transformer", "upsample"}


@needs_espeak
def test_voices_for_judging_are_asked_once_and_never_trained_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is finished is not asked again."""
    from moshivis_ros.cli import main
    from moshivis_ros.evaluation import dialogue_test, voices_test
    from moshivis_ros.training.pool import pool as draw
    from moshivis_ros.training.utterances import FLITE_USER

    names = {voice.name for voice in voices_test.JUDGES.values() if hasattr(voice, "name")}
    assert FLITE_USER not in names and not names & {name.split("+")[1] for name in speakers.USERS}

    judge = EspeakVoice(speakers.HELD_OUT_USER)
    monkeypatch.setattr(voices_test, "JUDGES", {"judge": judge})
    monkeypatch.setattr(voices_test, "VOICES", {"judge": judge})
    monkeypatch.setattr(voices_test, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(voices_test, "KINDS", ("small talk",))
    monkeypatch.setattr(dialogue_test, "KIND_ORDER", ("small talk",))
    monkeypatch.setattr(
        dialogue_test, "pool", lambda path, count, *how: draw(tmp_path / "pictures.npz", 4, *how)
    )
    command = ["eval", "builtin", "--voices", "held-out", "--per-kind", "6"]
    assert main([*command, "--write", str(tmp_path / "table.md")]) == 0
    table = (tmp_path / "table.md").read_text()
    row = next(line for line in table.splitlines() if line.startswith("| judge, clean"))
    asked, right = (int(cell) for cell in row.split("|")[2:4])
    assert asked == 6 and right >= 80
    capsys.readouterr()
    monkeypatch.setattr(dialogue_test.Examination, "ask", lambda *_: pytest.fail("asked again"))
    assert main(command) == 0 and row in capsys.readouterr().out


@needs_flite
def test_the_room_of_the_judges_has_the_noise_that_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyroomacoustics")
    from moshivis_ros.evaluation import voices_test
    from moshivis_ros.training import utterances

    heard: list[utterances.Recording] = []
    monkeypatch.setattr(utterances, "encode", lambda _, recordings: heard.extend(recordings) or heard)
    monkeypatch.setattr(utterances, "silences", lambda *_: ())
    voices_test.library(None, {TEXT: FliteVoice("rms").say(TEXT)}, noisy=True, seed=5)
    before, length = 7 * utterances.FRAME_SIZE, round(2 * SAMPLE_RATE)
    noise, both = (
        float(np.square(part).mean())
        for part in (heard[0].pcm[:before], heard[0].pcm[before + 2000 :][:length])
    )
    assert 10 * np.log10((both - noise) / noise) == pytest.approx(voices_test.SIGNAL_TO_NOISE, abs=1.5)
