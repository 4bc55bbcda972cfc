"""What a robot recorded (the node `recorder`) as a sample: its sound, what it said and when, what it had before its eyes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moshivis_ros.audio.files import Writer
from moshivis_ros.data.folder import SampleFolder, Shown
from moshivis_ros.data.pictures import safe
from moshivis_ros.errors import RecordingError
from moshivis_ros.recording.bag import bag_files
from moshivis_ros.recording.recorded import Recorded, Said, follow
from moshivis_ros.training.voices import Word

LONGEST_WORD = 1.0  # seconds: the last piece before a pause lasts no longer
TAIL = 0.3  # seconds that a word's last piece lasts where nothing tells
KIND = "RECORDED"


def add_bag(folder: SampleFolder, bag: str) -> str | None:
    """A bag as one sample of the folder, unless it is there. Returns what had to be left out, in words.

    The text is the model's own, whatever it said: listen, and mend NAME.json where it should have said something else.
    Raises RecordingError where there is no sound of the robot.
    """
    files = bag_files(bag)
    path = Path(bag).expanduser().resolve()
    name = safe(path.name if path.is_dir() else files[0].stem)
    if name in folder.done:
        return None
    recorded = Recorded()
    writer = Writer(folder.path / f"{name}.wav", channels=2)
    samples = 0
    try:
        for block in follow(bag, recorded):
            writer.write(block)
            samples += len(block)
    except BaseException:
        writer.discard()
        raise
    if not recorded.has_sound or not samples:
        writer.discard()
        raise RecordingError(
            f"{bag}: nothing is heard in it (audio_out, audio_in), so nothing can be learned from it"
        )
    writer.close()
    shown, lost = _pictures(folder, name, recorded)
    robot = [said for said in recorded.said if said.speaker == "robot"]
    words = words_of([said for said in robot if not said.whole], samples / 24000)
    folder.line(name, samples / 24000, words, shown, {"kind": KIND, "turns": turns_of(recorded.said)})
    notes = [*recorded.notes, *([f"{lost} pictures of the image cache are not in it"] if lost else [])]
    if not words:
        notes.append("the robot says no word in it (transcript)")
    return f"{bag}: {'; '.join(notes)}" if notes else None


def words_of(pieces: Sequence[Said], end: float) -> list[Word]:
    """Whole words of the pieces in which a model says them: a piece that begins with a space begins a word."""
    pieces = sorted(pieces, key=lambda piece: piece.start)
    words: list[Word] = []
    for number, piece in enumerate(pieces):
        following = pieces[number + 1].start if number + 1 < len(pieces) else piece.start + TAIL
        until = min(max(piece.end, following), piece.start + LONGEST_WORD, end)
        parts = piece.text.split()
        for k, part in enumerate(parts):
            start, stop = (piece.start + (until - piece.start) * n / len(parts) for n in (k, k + 1))
            if words and k == 0 and not piece.text.startswith(" "):
                words[-1] = Word(words[-1].text + part, words[-1].start, stop)
            else:
                words.append(Word(part, start, stop))
    return [word for word in words if word.start < word.end]


def turns_of(said: Sequence[Said]) -> list[dict[str, Any]]:
    """What was asked, and what was answered until the next question; utterances in the order in which they began."""
    turns: list[dict[str, Any]] = []
    for whole in sorted((one for one in said if one.whole), key=lambda one: one.start):
        text = whole.text.strip()
        if whole.speaker == "user" and (not turns or turns[-1]["answer"]):
            turns.append({"kind": KIND, "question": text, "answer": ""})
        elif whole.speaker == "user":
            turns[-1]["question"] = f"{turns[-1]['question']} {text}".strip()
        elif turns:
            turns[-1]["answer"] = f"{turns[-1]['answer']} {text}".strip()
        else:
            turns.append({"kind": KIND, "question": "", "answer": text})
    return turns


def _pictures(folder: SampleFolder, name: str, recorded: Recorded) -> tuple[list[Shown], int]:
    """Each picture from when it was in the cache, and of how many the bag does not hold the picture itself."""
    shown, lost = [], 0
    for seen in recorded.refreshes:
        if (data := recorded.pictures.get(seen.picture or 0)) is None:
            lost += 1
            continue
        ending = ".png" if data[:4] == b"\x89PNG" else ".jpg"
        shown.append(Shown(folder.picture(f"{name}-{seen.picture}", data, ending), max(0.0, seen.time)))
    return shown, lost
