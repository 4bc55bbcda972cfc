"""Files that a conversation leaves: checked before, written as it goes, in their place at the end."""

from __future__ import annotations

import json
import os
import resource
import shutil
import wave
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from moshivis_ros import outputs
from moshivis_ros.audio import SAMPLE_RATE, files
from moshivis_ros.errors import OutputError
from moshivis_ros.outputs import OutputFile, Outputs, TranscriptFile

TONE = (0.5 * np.sin(2 * np.pi * 440 * np.arange(5 * SAMPLE_RATE) / SAMPLE_RATE)).astype(np.float32)


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_stood_there_stays_until_the_new_file_is_complete(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"old")
    output = OutputFile(tmp_path / "a.wav")
    output.file.write(b"new")
    assert (tmp_path / "a.wav").read_bytes() == b"old" and names(tmp_path) == ["a.part.wav", "a.wav"]
    output.close()
    assert (tmp_path / "a.wav").read_bytes() == b"new" and names(tmp_path) == ["a.wav"]


def test_what_a_crash_left_is_not_written_over(tmp_path):
    (tmp_path / "a.part.wav").write_bytes(b"an hour")
    first, second = (OutputFile(tmp_path / "a.wav") for _ in range(2))
    for output in (first, second):
        output.close()
    assert (tmp_path / "a.part.wav").read_bytes() == b"an hour" and names(tmp_path) == ["a.part.wav", "a.wav"]


def test_a_link_stays_one(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "a.wav").symlink_to(tmp_path / "disk" / "b.wav")
    OutputFile(tmp_path / "a.wav").close()
    assert (tmp_path / "a.wav").is_symlink() and (tmp_path / "disk" / "b.wav").exists()


@pytest.mark.parametrize("name", ["ä ö.wav", f"{'x' * 250}.wav", "\udcff.wav"])
def test_any_name_that_the_system_allows(tmp_path, name):
    OutputFile(tmp_path / name).close()
    assert names(tmp_path) == [name]


@pytest.mark.parametrize(
    "path, says",
    [
        ("nowhere/a.wav", "there is no folder .*nowhere"),
        ("folder", "is a folder or a device"),
        ("/dev/full", "is a folder or a device"),
        ("/proc/a.wav", "0.0 MB free"),
        (f"{'x' * 300}.wav", "too long"),
        ("a\0b.wav", "null"),
    ],
)
def test_what_cannot_be_written_is_said_before(tmp_path, path, says):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match=says):
        OutputFile(tmp_path / path)
    assert names(tmp_path) == ["folder"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("what", ["file", "folder"])
def test_permissions_are_checked_before(tmp_path, what):
    (tmp_path / "a.wav").write_bytes(b"old")
    (tmp_path / "a.wav" if what == "file" else tmp_path).chmod(0o500)
    try:
        with pytest.raises(OutputError, match="a.wav"):
            OutputFile(tmp_path / "a.wav")
    finally:
        tmp_path.chmod(0o700)


def test_room_is_checked_before(tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(outputs.shutil, "disk_usage", lambda _: usage(20_000_000))
    files.Writer(tmp_path / "short.wav", seconds=60).discard()
    with pytest.raises(OutputError, match=r"173\.8 MB are needed and 20\.0 MB free"):
        files.Writer(tmp_path / "hour.wav", seconds=3600)
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["a.mp3", "a", "a.wav.txt", "wav"])
def test_sound_has_a_name_that_says_so(tmp_path, name):
    with pytest.raises(OutputError, match=r"written as \.wav or \.flac"):
        files.Writer(tmp_path / name)
    assert names(tmp_path) == []


def test_a_folder_that_was_removed_is_made_again(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    writer = files.Writer(folder / "a.wav")
    writer.write(TONE)
    script = TranscriptFile(folder / "a.json")
    shutil.rmtree(folder)
    writer.close()
    script.close({"pieces": []})
    assert files.read(folder / "a.wav").size == TONE.size
    assert json.loads((folder / "a.json").read_text()) == {"pieces": []}
    assert names(folder) == ["a.json", "a.wav"]


@pytest.mark.parametrize("kind", [".wav", ".flac"])
def test_an_unfinished_recording_has_all_but_the_last_moment(tmp_path, kind):
    writer = files.Writer(tmp_path / f"a{kind}")
    for start in range(0, TONE.size, 1920):
        writer.write(TONE[start : start + 1920])
    left = files.read(tmp_path / f"a.part{kind}")  # as a crash leaves it: not closed
    assert left.size >= TONE.size - 0.3 * SAMPLE_RATE
    np.testing.assert_allclose(left, TONE[: left.size], atol=1e-4)
    writer.close()
    np.testing.assert_allclose(files.read(tmp_path / f"a{kind}"), TONE, atol=1e-4)


def test_others_read_what_is_written(tmp_path):
    files.write(tmp_path / "a.wav", np.stack([TONE, -TONE], axis=1))
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert file.getparams()[:4] == (2, 2, SAMPLE_RATE, TONE.size)
        left, right = np.frombuffer(file.readframes(TONE.size), np.int16).reshape(-1, 2).T
    np.testing.assert_array_equal(left, np.rint(TONE * 32768))
    np.testing.assert_array_equal(left, -right)


@pytest.mark.parametrize("kind", [".wav", ".flac"])
def test_a_disk_that_fills_up_leaves_what_there_is_under_the_other_name(tmp_path, kind):
    (tmp_path / f"a{kind}").write_bytes(b"old")
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 10 * SAMPLE_RATE).astype(np.float32)
    writer = files.Writer(tmp_path / f"a{kind}")
    with full_disk(200_000), pytest.raises(OutputError, match=rf"a\.part\{kind}"):
        for start in range(0, noise.size, 1920):
            writer.write(noise[start : start + 1920])
    assert (tmp_path / f"a{kind}").read_bytes() == b"old"
    left = np.concatenate(list(files.Recording(tmp_path / f"a.part{kind}")))
    assert 3 * SAMPLE_RATE < left.size < 5 * SAMPLE_RATE
    np.testing.assert_allclose(left, noise[: left.size], atol=1e-4)


def test_a_file_that_fails_ends_alone(tmp_path):
    said: list[str] = []
    both = Outputs(
        said.append,
        sound=lambda: files.Writer(tmp_path / "a.wav"),
        transcript=lambda: TranscriptFile(tmp_path / "a.json"),
    )
    with full_disk(100_000):
        for start in range(0, TONE.size, 1920):
            both.attempt("sound", lambda file, start=start: file.write(TONE[start : start + 1920]))
            both.attempt("transcript", lambda file: file.add("piece", {"text": "hey"}))
    both.attempt("sound", lambda file: file.close())
    both.attempt("transcript", lambda file: file.close({"pieces": ["hey"]}))
    assert both.failed and len(said) == 1 and "a.part.wav" in said[0]
    assert names(tmp_path) == ["a.json", "a.part.wav"] and "hey" in (tmp_path / "a.json").read_text()


def test_nothing_stays_where_one_cannot_be_opened(tmp_path):
    (tmp_path / "a.json").mkdir()
    with pytest.raises(OutputError, match=r"a\.json"):
        Outputs(
            print,
            sound=lambda: files.Writer(tmp_path / "a.wav"),
            transcript=lambda: TranscriptFile(tmp_path / "a.json"),
        )
    assert names(tmp_path) == ["a.json"]
