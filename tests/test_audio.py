"""Sound conversion: levels, aliases, delays, and what happens to bad sound."""

from __future__ import annotations

import tracemalloc
from array import array
from fractions import Fraction

import numpy as np
import pytest

from moshivis_ros.audio import FRAME_SIZE, SAMPLE_RATE, files
from moshivis_ros.audio.framing import AudioInput, Framer
from moshivis_ros.audio.pcm import decode, encode
from moshivis_ros.audio.resample import Resampler, resample, resample_blocks
from moshivis_ros.errors import AudioError, OutputError


def sine(frequency: float, rate: int, seconds: float = 0.5) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate).astype(np.float32)


def level(samples: np.ndarray) -> float:
    """dB below a full-scale sine."""
    return float(10 * np.log10(2 * np.mean(samples.astype(float) ** 2) + 1e-20))


def chunked(samples: np.ndarray, seed: int) -> list[np.ndarray]:
    cuts = np.sort(np.random.default_rng(seed).integers(0, samples.size, 40))
    return np.split(samples, cuts)


# pcm


def test_int16_survives_the_round_trip_bit_exactly():
    every = np.arange(-32768, 32768, dtype=np.int16)
    samples, replaced = decode(array("h", every.tobytes()))
    assert samples.min() == -1 and samples.dtype == np.float32 and replaced == 0
    np.testing.assert_array_equal(encode(samples), every)


def test_too_loud_is_clipped_not_wrapped():
    assert encode(np.float32([1.5, -1.5, 1.0])).tolist() == [32767, -32768, 32767]
    assert decode(np.float32([1e30, -7]), sample_format="float32")[0].tolist() == [1, -1]


@pytest.mark.parametrize(
    "sample_format, values",
    [
        ("int8", [64, -128]),
        ("uint8", [192, 0]),
        ("int32", [2**30, -(2**31)]),
        ("float32", [0.5, -1]),
        (">i2", [2**14, -(2**15)]),
    ],
)
def test_every_format_means_the_same_sound(sample_format, values):
    samples, _ = decode(np.array(values, sample_format).tobytes(), sample_format=sample_format)
    assert samples.tolist() == [0.5, -1]


def test_channels_are_averaged():
    assert decode(np.int16([16384, 0, -16384, 0]), channels=2)[0].tolist() == [0.25, -0.25]


def test_nan_and_infinity_become_silence_and_are_counted():
    samples, replaced = decode(np.float32([0.5, np.nan, np.inf, -np.inf]), sample_format="float32")
    assert samples.tolist() == [0.5, 0, 0, 0]
    assert replaced == 3


@pytest.mark.parametrize(
    "data, channels, sample_format, says",
    [
        (b"", 1, "int16", "without samples"),
        (b"abc", 1, "int16", "3 bytes"),
        (b"abcdef", 2, "int16", "3 samples do not fill 2 channels"),
        (b"ab", 0, "int16", "0 channels"),
        (b"abcd", 1, "mp3", "unknown sample format 'mp3'"),
        (b"abcd", 1, "01", "unknown sample format '01'"),
        (b"abcd", 1, ">int16", "unknown sample format '>int16'"),
        (b"abcdefgh", 1, "float64", "unknown sample format"),
    ],
)
def test_unusable_sound_is_refused_by_name(data, channels, sample_format, says):
    with pytest.raises(AudioError, match=says):
        decode(data, channels, sample_format)


# resample

RATES = [
    (48000, 24000),
    (44100, 24000),
    (16000, 24000),
    (8000, 24000),
    (24000, 48000),
    (24000, 44100),
    (96000, 24000),
    (47999, 24000),
    (44099.7, 24000),
    (95999, 24000),
    (383999, 24000),
    (8001, 24000),
    (24001, 24000),
    (24000, 47999),
]


@pytest.mark.parametrize("source, target", RATES)
def test_a_tone_keeps_its_level_and_comes_late_by_the_stated_delay(source, target):
    convert = Resampler(source, target)
    assert 0.0005 <= convert.delay <= 0.003
    frequency = 0.3 * min(source, target)
    out = convert(sine(frequency, source))
    time = np.arange(out.size) / target - convert.delay
    settled = time > convert.delay
    expected = np.sin(2 * np.pi * frequency * time)
    np.testing.assert_allclose(out[settled], expected[settled], atol=2e-4)


@pytest.mark.parametrize("source, target", RATES)
def test_nothing_of_a_tone_is_left_where_it_does_not_belong(source, target):
    for part in (0.1, 0.3, 0.52, 0.6, 0.75, 0.95):  # of the lower rate; 0.5 is its Nyquist frequency
        frequency = part * min(source, target)
        if frequency >= source / 2:
            continue
        out = Resampler(source, target)(sine(frequency, source))[target // 10 :]
        spectrum = np.fft.rfft(out * np.kaiser(out.size, 20)) / (np.kaiser(out.size, 20).sum() / 2)
        if part < 0.5:  # the tone itself is allowed
            wanted = np.abs(np.fft.rfftfreq(out.size, 1 / target) - frequency) < 50
            spectrum = spectrum[~wanted]
        assert 20 * np.log10(np.abs(spectrum).max()) < -80, frequency


@pytest.mark.parametrize("source, target", RATES)
def test_any_chunking_gives_the_same_sound(source, target):
    samples = np.random.default_rng(0).normal(size=9000).astype(np.float32)
    convert = Resampler(source, target)
    whole = Resampler(source, target)(samples)
    pieces = [convert(chunk) for chunk in chunked(samples, seed=1)]
    np.testing.assert_allclose(np.concatenate(pieces), whole, atol=1e-6)
    assert whole.size == np.ceil(9000 * Fraction(str(target)) / Fraction(str(source)))


def test_20_milliseconds_in_are_20_milliseconds_out_every_time():
    for rate in (48000, 44100, 16000):
        convert = Resampler(rate, SAMPLE_RATE)
        assert {convert(np.zeros(rate // 50, np.float32)).size for _ in range(50)} == {480}


def test_a_whole_recording_is_not_delayed():
    out = resample(sine(1000, 44100), 44100, SAMPLE_RATE)
    expected = sine(1000, SAMPLE_RATE)
    assert out.size == expected.size
    np.testing.assert_allclose(out[100:-100], expected[100:-100], atol=2e-4)


def test_no_rate_needs_a_large_filter():
    """2^31 of coefficients, and minutes, is what a filter bank of the exact ratio would take for most of these."""
    rates = np.random.default_rng(0).uniform(1000, 384000, 200).round(2)
    for rate in [*rates, 1000, 1001, 383999, 384000, 352800.1]:
        for source, target in ((rate, SAMPLE_RATE), (SAMPLE_RATE, rate)):
            convert = Resampler(source, target)
            assert convert._filter._matrix.size < 1_000_000
            out = convert(np.ones(round(source / 10), np.float32))
            assert out.size == pytest.approx(target / 10, abs=1 + target / source)
            settled = out[round(3 * convert.delay * target) :]
            assert np.abs(settled - 1).max() < 2e-4 if settled.size else convert.delay > 0.02


@pytest.mark.parametrize("rates", [(47999, 48001), (44099.7, 44100.2), (16000.3, 15999.9), (48000, 47999), (24002, 24001)])
def test_sound_goes_on_across_a_change_of_rate(rates):
    convert, time, pieces = None, 0.0, []
    for number in range(100):
        rate = rates[number % 2]
        count = round(rate * 0.02)
        convert = Resampler(rate, SAMPLE_RATE, after=convert)
        pieces.append(convert(np.sin(2 * np.pi * 440 * (time + np.arange(count) / rate)).astype(np.float32)))
        time += count / rate
    out = np.concatenate(pieces)
    assert abs(out.size - time * SAMPLE_RATE) < 2
    expected = np.sin(2 * np.pi * 440 * (np.arange(out.size) / SAMPLE_RATE - convert.delay))
    np.testing.assert_allclose(out[100:], expected[100:], atol=2e-3)


def test_blocks_of_a_recording_are_together_the_whole():
    samples = np.random.default_rng(3).normal(size=30000).astype(np.float32)
    for rate in (48000, 11025, 47999.5):
        whole = resample(samples, rate, SAMPLE_RATE)
        blocks = list(resample_blocks(chunked(samples, seed=4), rate, SAMPLE_RATE))
        np.testing.assert_allclose(np.concatenate(blocks), whole, atol=1e-5)
        assert whole.size == round(30000 * SAMPLE_RATE / rate)


@pytest.mark.parametrize("rate", [0, -1, 10**7, float("nan"), 999.9, 384000.1])
def test_an_impossible_rate_is_refused(rate):
    with pytest.raises(AudioError, match=f"sample rate of {rate} Hz"):
        Resampler(rate, SAMPLE_RATE)


# framing


def test_frames_hold_the_samples_in_order():
    samples = np.arange(10000, dtype=np.float32)
    framer = Framer()
    frames = [frame for chunk in chunked(samples, seed=2) for frame in framer.push(chunk)]
    assert framer.pending == 10000 % FRAME_SIZE
    frames += framer.flush()
    assert framer.flush() == []
    joined = np.concatenate(frames)
    np.testing.assert_array_equal(joined[:10000], samples)
    assert joined.size == 6 * FRAME_SIZE and not joined[10000:].any()


def message(value: int = 1000, size: int = FRAME_SIZE) -> np.ndarray:
    return np.full(size, value, np.int16)


def test_a_frame_carries_the_time_of_its_first_sample():
    audio = AudioInput()
    assert audio.push(message(), stamp=10**18 + 7)[0][0] == 10**18 + 7
    audio = AudioInput()
    milliseconds_20 = 20_000_000
    stamps = []
    for n in range(12):
        pushed = audio.push(np.zeros(960, np.int16), sample_rate=48000, stamp=10**18 + n * milliseconds_20)
        stamps += [stamp - 10**18 for stamp, _ in pushed]
    assert stamps == [-1_000_000, 79_000_000, 159_000_000]  # the resampler's own millisecond is taken off


def test_rate_and_channels_may_change_between_messages():
    audio = AudioInput()
    tone = encode(0.5 * sine(440, 48000, 1.0))
    frames = audio.push(np.repeat(tone, 2), sample_rate=48000, channels=2)
    frames += audio.push(encode(0.5 * sine(440, 16000, 1.0)), sample_rate=16000)
    assert len(frames) == 25
    for _, frame in frames[1:-1]:
        assert level(frame) == pytest.approx(-6, abs=0.5)


def test_a_repeated_or_late_message_is_dropped_and_counted():
    audio = AudioInput()
    heard = [len(audio.push(message(), index=index)) for index in (5, 6, 6, 5, 7)]
    assert heard == [1, 1, 0, 0, 1]
    assert audio.counts.repeated == 2 and audio.counts.lost == 0


def test_a_short_gap_is_counted_and_filled_with_silence():
    audio = AudioInput()
    audio.push(message(), index=0, stamp=0)
    frames = audio.push(message(), index=2, stamp=160_000_000)
    assert audio.counts.lost == 1
    assert [stamp for stamp, _ in frames] == [80_000_000, 160_000_000]
    assert not frames[0][1].any() and frames[1][1].all()


def test_a_long_gap_is_counted_and_not_filled():
    audio = AudioInput()
    audio.push(message(), index=0)
    assert len(audio.push(message(), index=100)) == 1
    assert audio.counts.lost == 99


@pytest.mark.parametrize("last, first", [(1000, 0), (1000, 3), (4, 0)])
def test_a_restarted_publisher_is_heard_at_once(last, first):
    audio = AudioInput()
    audio.push(message(), index=last)
    assert len(audio.push(message(), index=first)) == 1
    assert len(audio.push(message(), index=first + 1)) == 1
    assert audio.counts.lost == audio.counts.repeated == 0


def test_a_refused_message_is_counted_and_the_next_one_is_heard():
    audio = AudioInput()
    with pytest.raises(AudioError):
        audio.push(b"", index=0)
    with pytest.raises(AudioError):
        audio.push(message(), index=1, sample_rate=0)
    assert len(audio.push(message(), index=2)) == 1
    assert audio.counts.refused == 2 and audio.counts.lost == 0


@pytest.mark.parametrize("rate, channels, seconds", [(48000, 2, 3.001), (8000, 1, 60), (384000, 64, 0.5)])
def test_a_message_that_is_too_long_is_cut_to_its_end(rate, channels, seconds):
    """Three seconds, or seven million numbers."""
    left = np.arange(round(seconds * rate)) % 100
    data = np.repeat(left[:, None], channels, axis=1).astype(np.int16)
    audio = AudioInput(size=240)
    frames = audio.push(data, sample_rate=rate, channels=channels, stamp=10**18)
    kept = min(3.0, 7_000_000 // channels / rate)
    assert len(frames) == int(kept * 100) and audio.counts.cut == 1
    assert frames[0][0] == pytest.approx(10**18 + (seconds - kept) * 1e9, abs=5e6)
    audio.push(data[: rate // 10], sample_rate=rate, channels=channels)
    assert audio.counts.cut == 1


def test_two_seconds_are_an_ordinary_message():
    audio = AudioInput()
    assert len(audio.push(np.zeros(2 * 384000 * 8, np.int16), sample_rate=384000, channels=8)) == 25
    assert audio.counts.cut == 0


def test_replaced_samples_are_counted():
    audio = AudioInput()
    [(_, frame)] = audio.push(np.full(FRAME_SIZE, np.nan, np.float32), sample_format="float32")
    assert not frame.any() and audio.counts.replaced == FRAME_SIZE


# files


@pytest.mark.parametrize(
    "name, rate, channels", [("q.wav", 44100, 2), ("q.flac", 16000, 1), ("q.wav", 8000, 3)]
)
def test_a_recording_of_any_kind_becomes_24_kilohertz_mono(tmp_path, name, rate, channels):
    tone = 0.5 * sine(440, rate)
    files.write(tmp_path / name, np.repeat(tone[:, None], channels, axis=1), rate)
    samples = files.read(tmp_path / name)
    assert samples.shape == (SAMPLE_RATE // 2,) and samples.dtype == np.float32
    np.testing.assert_allclose(samples[200:-200], 0.5 * sine(440, SAMPLE_RATE)[200:-200], atol=1e-3)


def test_what_is_written_is_read_back_bit_exactly(tmp_path):
    samples = decode(np.random.default_rng(0).integers(-32768, 32768, 5000).astype(np.int16))[0]
    files.write(tmp_path / "a.wav", samples)
    np.testing.assert_array_equal(files.read(tmp_path / "a.wav"), samples)


def test_memory_does_not_grow_with_the_length_of_a_recording(tmp_path):
    peaks = {}
    for seconds in (20, 200):
        path = tmp_path / f"{seconds}.wav"
        files.write(path, np.tile(sine(440, 44100, 1.0), seconds), 44100)
        tracemalloc.start()
        heard = sum(block.size for block in files.Recording(path))
        peaks[seconds] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert heard == seconds * SAMPLE_RATE
    assert peaks[200] < 1.2 * peaks[20] < 10e6


def test_reading_is_in_blocks_that_are_together_the_whole(tmp_path):
    files.write(tmp_path / "a.flac", sine(440, 44100, 3.5), 44100)
    blocks = list(files.Recording(tmp_path / "a.flac"))
    assert len(blocks) >= 4 and max(block.size for block in blocks) < 2 * SAMPLE_RATE
    np.testing.assert_array_equal(np.concatenate(blocks), files.read(tmp_path / "a.flac"))


def test_recordings_that_cannot_be_read_or_written_are_named(tmp_path):
    with pytest.raises(AudioError, match=r"none\.wav: no such recording"):
        files.read(tmp_path / "none.wav")
    (tmp_path / "text.wav").write_text("not sound")
    with pytest.raises(AudioError, match=r"text\.wav: not a recording"):
        files.read(tmp_path / "text.wav")
    files.write(tmp_path / "empty.wav", np.zeros(0, np.float32))
    with pytest.raises(AudioError, match=r"empty\.wav: the recording is empty"):
        files.read(tmp_path / "empty.wav")
    with pytest.raises(OutputError, match="there is no folder"):
        files.write(tmp_path / "nowhere" / "a.wav", np.zeros(10, np.float32))
