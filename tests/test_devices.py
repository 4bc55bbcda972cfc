"""Microphone and speaker through a real PortAudio, on virtual PulseAudio devices."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from moshivis_ros.audio import devices
from moshivis_ros.audio.devices import Microphone, Speaker, find_device, list_devices
from moshivis_ros.audio.pcm import encode
from moshivis_ros.errors import AudioError

RATE = 48000


@pytest.fixture
def virtual(pulse, monkeypatch):
    pytest.importorskip("sounddevice")
    for name, value in pulse.items():
        monkeypatch.setenv(name, value)
    devices.rescan()
    if not any("pulse" in line for line in list_devices("input")):
        pytest.skip("ALSA has no pulse device: apt install libasound2-plugins")


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, int(RATE * seconds)).astype(np.float32)


def pacat(*arguments: str) -> list[str]:
    return [
        "pacat",
        *arguments,
        "--raw",
        f"--rate={RATE}",
        "--channels=1",
        "--format=s16le",
        "--latency-msec=40",
    ]


def where(needle: np.ndarray, hay: np.ndarray) -> int:
    """Position at which `hay` holds all of `needle`, bit-exactly; -1: nowhere."""
    return hay.tobytes().find(needle.tobytes()) // 2


def chunks_of(stream, seconds: float = 20):
    """The chunks of a microphone or speaker; the virtual devices take a second or two to start."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (chunk := stream.read()) is not None:
            yield chunk
    raise AssertionError("the device gave too little")


def read_until(stream, needle: np.ndarray) -> list:
    chunks = []
    for chunk in chunks_of(stream):
        chunks.append(chunk)
        if where(needle, np.concatenate([chunk.samples for chunk in chunks])) >= 0:
            break
    return chunks


def test_the_microphone_hears_bit_exactly(virtual):
    sound = encode(noise(0.5))
    with Microphone("pulse", sample_rate=RATE) as microphone:
        next(chunks_of(microphone))
        player = subprocess.Popen(pacat("--playback", "--device=mic"), stdin=subprocess.PIPE)
        player.communicate(sound.tobytes())
        chunks = read_until(microphone, sound)
    assert [chunk.index for chunk in chunks] == list(range(1, len(chunks) + 1))
    stamps = np.array([chunk.stamp for chunk in chunks]) / 1e9
    assert abs(stamps[-1] - time.time()) < 5 and (np.diff(stamps) > 0).all()
    assert microphone.dropped == 0


def test_the_speaker_plays_and_reports_what_it_played_bit_exactly(virtual):
    sound = noise(0.4)
    recorder = subprocess.Popen(pacat("--record", "--device=spk.monitor"), stdout=subprocess.PIPE)
    heard = bytearray()

    def listen():
        while data := os.read(recorder.stdout.fileno(), 65536):
            heard.extend(data)

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        with Speaker("pulse", sample_rate=RATE) as speaker:
            while not heard:
                next(chunks_of(speaker))
            speaker.write(sound, RATE)
            played = read_until(speaker, encode(sound))
            while where(encode(sound), np.frombuffer(bytes(heard[: len(heard) & ~1]), np.int16)) < 0:
                played.append(next(chunks_of(speaker)))
    finally:
        recorder.terminate()
        listener.join(10)
        recorder.wait(10)
    assert [chunk.index for chunk in played] == list(range(played[0].index, played[0].index + len(played)))
    assert speaker.underruns == 1  # at its end, once
    assert speaker.skipped == 0


def test_the_speaker_converts_rates(virtual):
    sound = np.sin(2 * np.pi * 440 * np.arange(7200) / 24000).astype(np.float32)
    with Speaker("pulse", sample_rate=RATE) as speaker:
        speaker.write(sound)
        played = np.concatenate([chunk.samples for chunk, _ in zip(chunks_of(speaker), range(25))])
    played = played[np.flatnonzero(np.abs(played) > 16)[0] :]
    assert np.std(played[960:12000] / 32768) == pytest.approx(np.sqrt(0.5), rel=0.02)
    assert not played[14500:].any()


def test_a_speaker_that_gets_too_much_skips_the_oldest(virtual):
    with Speaker("pulse", sample_rate=RATE) as speaker:
        late, fresh = noise(1.0, seed=1), noise(0.4, seed=2)
        speaker.write(late, RATE)
        speaker.write(fresh, RATE)
        chunks = read_until(speaker, encode(fresh))
    assert speaker.skipped >= 0.8 * RATE
    assert where(encode(late), np.concatenate([chunk.samples for chunk in chunks])) < 0


def test_what_waits_can_be_cut_off_without_a_click(virtual):
    """As when the robot is muted in the middle of a word."""
    tone = np.sin(2 * np.pi * 440 * np.arange(int(0.4 * RATE)) / RATE).astype(np.float32)
    with Speaker("pulse", sample_rate=RATE) as speaker:
        speaker.write(tone, RATE)
        speaker.write(np.zeros(RATE // 10, np.float32), RATE, flush=True)
        played = np.concatenate([chunk.samples for chunk, _ in zip(chunks_of(speaker), range(25))])
    sound = np.flatnonzero(np.abs(played) > 300)
    assert sound.size and sound[-1] - sound[0] < 0.2 * RATE  # of the 0.4 s what had left already, and the fade
    assert np.abs(np.diff(played.astype(int))).max() < 2500  # a tone's own steps are up to 1900


def test_silence_is_left_out_while_much_waits(virtual):
    """After a burst of late sound, which would delay everything that follows."""
    with Speaker("pulse", sample_rate=RATE) as speaker:
        speaker.write(noise(0.4), RATE)
        speaker.write(np.zeros(RATE // 10, np.float32), RATE)
        assert speaker.left_out == RATE // 10
        for _ in zip(chunks_of(speaker), range(20)):
            pass
        speaker.write(np.zeros(RATE // 10, np.float32), RATE)
    assert speaker.left_out == RATE // 10 and speaker.skipped == 0


def test_nobody_reading_loses_the_oldest_sound_and_counts_it(virtual, monkeypatch):
    monkeypatch.setattr(devices, "QUEUE_SECONDS", 0.1)
    with Microphone("pulse", sample_rate=RATE) as microphone:
        deadline = time.monotonic() + 20
        while microphone.dropped < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert next(chunks_of(microphone)).index >= 3


def test_a_device_that_is_not_there_is_named_with_those_that_are(virtual):
    with pytest.raises(
        AudioError,
        match=r"(?s)no microphone is 'no such thing'.*\d+  pulse  \(\d+ channels, \d+ Hz\)",
    ):
        Microphone("no such thing")
    with pytest.raises(AudioError, match="no loudspeaker is 99"):
        Speaker(99)


def test_a_machine_without_devices_says_so(monkeypatch):
    monkeypatch.setattr(devices, "_devices", lambda kind: [])
    with pytest.raises(AudioError, match=r"(?s)no microphone is the default device.*\(there is none\)"):
        find_device(None, "input")


def test_a_device_is_found_by_part_of_its_name_or_its_index(virtual):
    index = find_device("PULS", "input")
    assert (
        find_device(index, "input")
        == find_device(str(index), "input")
        == find_device("pulse", "input")
        == index
    )


def test_a_name_that_fits_several_is_refused(monkeypatch):
    several = [
        {
            "index": n,
            "name": f"USB Audio {n}",
            "max_input_channels": 1,
            "default_samplerate": 48000.0,
        }
        for n in (3, 5)
    ]
    monkeypatch.setattr(devices, "_devices", lambda kind: several)
    with pytest.raises(AudioError, match="2 microphones fit 'usb'"):
        find_device("usb", "input")
    assert find_device("Audio 5", "input") == 5


def test_an_impossible_rate_is_refused_and_the_device_can_be_opened_afterwards(virtual):
    with pytest.raises(AudioError, match="cannot open 'pulse' at 7 Hz"):
        Microphone("pulse", sample_rate=7)
    with Microphone("pulse") as microphone:
        assert next(chunks_of(microphone)).samples.size


def test_a_microphone_that_goes_away_says_so(virtual):
    with Microphone("pulse") as microphone:
        next(chunks_of(microphone))
        subprocess.run(["pactl", "exit"], check=True)
        with pytest.raises(AudioError, match="'pulse' stopped; was it unplugged"):
            for _ in chunks_of(microphone):
                pass


def test_a_missing_library_is_named_with_its_remedy():
    program = (
        "import ctypes.util, sys; ctypes.util.find_library = lambda name: None\n"
        "from moshivis_ros.audio.devices import Microphone\n"
        "from moshivis_ros.errors import MissingDependencyError\n"
        "try: Microphone()\n"
        "except MissingDependencyError as error: print(error)\n"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "apt install libportaudio2" in out
