"""A folder of samples about real pictures: what is read, what becomes of it, and what is refused."""

from __future__ import annotations

import json
import resource
import signal
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from samples import ANSWERS, write_folder, write_wav

from moshivis_ros.errors import ConfigError, OutputError
from moshivis_ros.model.checkpoint import load_model
from moshivis_ros.model.codec import Codec
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.init import init_checkpoint
from moshivis_ros.model.tokenizer import Tokenizer
from moshivis_ros.training.batches import NOTHING, Batch, Batches, Limits
from moshivis_ros.training.folder import read
from moshivis_ros.training.prepared import Prepared


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    init_checkpoint(folder / "model")
    write_folder(folder / "data", dialogues=2)
    return folder


@pytest.fixture(scope="module")
def prepared(made: Path) -> Prepared:
    config = ModelConfig.load(made / "model")
    data = read([made / "data"])
    (made / "cache").mkdir()
    one = Prepared(made / "cache", made / "model" / config.model, config, torch.float32)
    one.prepare(data.pictures, [each.sound for each in data.dialogues], torch.device("cpu"))
    return one


def batches(made: Path, prepared: Prepared, share: float, frames: int = 50, pictures: int = 2) -> Batches:
    tokenizer = Tokenizer.load(made / "model", prepared.config)
    limits = Limits(frames, 120, pictures, 0.5)
    return Batches(prepared.config, tokenizer.encode, read([made / "data"]), prepared, share, limits, 0)


def text_of(batch: Batch, made: Path, row: int, keep: torch.Tensor) -> str:
    decoder = Tokenizer.load(made / "model", ModelConfig.load(made / "model")).decoder()
    return "".join(decoder.push(int(token)) or "" for token in batch.tokens[row, 0][keep]).strip()


def test_pictures_and_sounds_become_what_the_model_makes_of_them(made: Path, prepared: Prepared) -> None:
    config = prepared.config
    model = load_model(made / "model", "cpu", torch.float32)
    red = prepared.picture(made / "data" / "pictures" / "red.png")
    pixels = torch.tensor([1.0, -1.0, -1.0])[None, :, None, None].expand(1, 3, 56, 56)
    assert torch.allclose(red, model.image_prefix.enc.model(pixels)[0], atol=1e-4)
    codes = prepared.sound(made / "data" / "0.wav")
    assert codes.shape == (16, 50) and not torch.equal(codes[:8], codes[8:])
    with wave.open(str(made / "data" / "0.wav")) as file:
        pcm = np.frombuffer(file.readframes(10**6), "<i2").astype(np.float32).reshape(-1, 2).T / 32768
    codec = Codec.load(made / "model", config, "cpu")
    for side in (0, 1):  # left is the model
        codec.reset()
        sound = torch.from_numpy(pcm[side].copy()).view(-1, 1, 1, 1920)
        live = torch.stack([codec.encode(frame)[0] for frame in sound], -1)
        assert (live == codes[8 * side : 8 * side + 8]).float().mean() > 0.9


def test_a_file_is_made_once(made: Path, prepared: Prepared) -> None:
    before = {path: path.stat().st_mtime_ns for path in prepared.folder.iterdir()}
    assert len(before) == 2 + 3
    data = read([made / "data"])
    prepared.prepare(data.pictures, [each.sound for each in data.dialogues], torch.device("cpu"))
    assert {path: path.stat().st_mtime_ns for path in prepared.folder.iterdir()} == before


def test_a_dialogue(made: Path, prepared: Prepared) -> None:
    drawn = batches(made, prepared, 0.0).draw(0, 12)[0]
    two = next(row for row in range(12) if drawn.shown[row].max() == 1)
    assert drawn.tokens.shape == (12, 17, 50) and drawn.spoken.all()
    codes = prepared.sound(made / "data" / "1.wav")
    assert torch.equal(drawn.tokens[two, 1:], codes)
    text = drawn.tokens[two, 0]
    assert text_of(drawn, made, two, text >= 0) == ANSWERS["red"], "and nothing of what the user says"
    assert text[12] not in (0, 3) and text[11] == 0 and (text[:11] == 3).all(), "the first word begins at 1 s"
    assert (drawn.weight[two][:12] == 0.5).all() and drawn.weight[two][12] == 1
    assert (drawn.shown[two][:35] == 0).all() and (drawn.shown[two][35:] == 1).all(), (
        "another picture at 2.8 s"
    )
    assert (drawn.visual[two][:12] == 0).all() and (drawn.visual[two][12:15] == 1).all()
    red, blue = (prepared.picture(made / "data" / "pictures" / f"{name}.png") for name in ("red", "blue"))
    assert torch.equal(drawn.pictures[two], torch.stack((red, blue)))


def test_text_comes_before_its_sound_by_as_much_as_the_model_has_learned(made: Path, prepared: Prepared) -> None:
    tokenizer = Tokenizer.load(made / "model", prepared.config)
    limits = Limits(50, 120, 2, 0.5, ahead=2)
    drawn = Batches(
        prepared.config, tokenizer.encode, read([made / "data"]), prepared, 0.0, limits, 0
    ).draw(0, 12)[0]
    two = next(row for row in range(12) if drawn.shown[row].max() == 1)
    assert drawn.tokens[two, 0, 10] not in (0, 3) and (drawn.tokens[two, 0, :9] == 3).all()
    assert torch.equal(drawn.tokens[two, 1:], prepared.sound(made / "data" / "1.wav"))


def test_parts_of_long_dialogues_and_of_many_pictures(made: Path, prepared: Prepared) -> None:
    parts = batches(made, prepared, 0.0, frames=10).draw(0, 40)[0]
    assert parts.tokens.shape[2] == 10
    later = [row for row in range(40) if (parts.shown[row] == 0).all()]
    firsts = [parts.pictures[row, 0] for row in later]
    blue = prepared.picture(made / "data" / "pictures" / "blue.png")
    assert 0 < sum(torch.equal(first, blue) for first in firsts) < len(firsts), (
        "some parts lie after the change, and see the second picture from their beginning"
    )
    single = batches(made, prepared, 0.0, pictures=1).draw(0, 12, parts=12)
    assert {one.tokens.shape[2] for one in single} == {35, 50}, (
        "what would show a second picture ends before it"
    )


def test_a_sample_without_sound(made: Path, prepared: Prepared) -> None:
    drawn = batches(made, prepared, 1.0).draw(0, 3, parts=3)
    for one in drawn:
        assert not one.spoken.any() and not len(one.heard)
        assert (one.tokens[0, 1:] == NOTHING).all()
        prompt = one.weight[0] == 0
        assert text_of(one, made, 0, prompt) == "What do you see?"
        assert text_of(one, made, 0, ~prompt) in ANSWERS.values()
        begin = int(prompt.sum())
        assert one.tokens[0, 0, begin] == 0 and (one.visual[0] == 1).sum() > 3
        answer = one.tokens[0, 0, begin:-6]
        assert (answer != 3).all(), "where a word does not come at once, the end-of-padding token announces it"
    long = [one for step in range(9) for one in batches(made, prepared, 1.0).draw(step, 3, parts=3)]
    assert any((one.tokens[0, 0] == 0).sum() > 1 for one in long), "some do not"


def test_who_takes_them_does_not_matter(made: Path, prepared: Prepared) -> None:
    source = batches(made, prepared, 0.5)
    whole = source.draw(7, 8)[0]
    parts = [part for rank in (0, 1) for part in source.draw(7, 8, rank, 2, 2)]
    assert len(parts) == 4 and all(len(part.weight) == 2 for part in parts)
    assert sum(part.weight.sum() for part in parts) == whole.weight.sum()
    assert not torch.equal(source.draw(8, 8)[0].weight.sum(), whole.weight.sum())


def rewrite(folder: Path, name: str, change: Callable[[str], str]) -> None:
    (folder / name).write_text(change((folder / name).read_text()))


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda f: (f / "1.wav").unlink(), "1.wav cannot be read"),
        (
            lambda f: write_wav(f / "1.wav", 4, rate=16000),
            r"1.wav has 2 channels of 16 bits at 16000 Hz.*ffmpeg",
        ),
        (lambda f: write_wav(f / "1.wav", 4, channels=1), "1.wav has 1 channels"),
        (lambda f: (f / "0.json").unlink(), "0.json with the words' times cannot be read"),
        (lambda f: rewrite(f, "0.json", lambda t: t.replace("1.25", "99")), "99.0 s is not within"),
        (lambda f: rewrite(f, "0.json", lambda t: "[]"), "0.json is not as it is expected"),
        (
            lambda f: rewrite(f, "0.json", lambda t: t.replace('"at": 0.0', '"at": NaN')),
            "0.json is not as it is expected.*nan is no time",
        ),
        (lambda f: (f / "train.jsonl").write_bytes(b"\xff\n"), "train.jsonl cannot be read"),
        (lambda f: (f / "pictures" / "red.png").unlink(), "there is no picture .*red.png"),
        (lambda f: rewrite(f, "speechless.jsonl", lambda t: t.replace("text", "txt")), "line 1: .*text"),
        (lambda f: rewrite(f, "train.jsonl", lambda t: t[:-3]), "train.jsonl, line 2 is no JSON"),
        (lambda f: [path.unlink() for path in f.glob("*.jsonl")], "holds no .jsonl file"),
        (lambda f: [path.write_text("") for path in f.glob("*.jsonl")], "no sample in"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, break_it: Callable[[Path], object], words: str) -> None:
    folder = write_folder(tmp_path / "data", dialogues=2, seconds=2.5)
    break_it(folder)
    with pytest.raises(ConfigError, match=words):
        read([folder])


def test_a_picture_that_is_none(tmp_path: Path, made: Path) -> None:
    config = ModelConfig.load(made / "model")
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    one = Prepared(tmp_path / "cache", made / "model" / config.model, config, torch.float32)
    with pytest.raises(ConfigError, match="bad.png is no picture"):
        one.prepare([bad], [], torch.device("cpu"))


def test_a_full_disk(tmp_path: Path, made: Path) -> None:
    config = ModelConfig.load(made / "model")
    (tmp_path / "cache").mkdir()
    one = Prepared(tmp_path / "cache", made / "model" / config.model, config, torch.float32)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    try:
        with pytest.raises(OutputError, match="free some space"):
            one.prepare([made / "data" / "pictures" / "red.png"], [], torch.device("cpu"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


def test_a_text_may_hold_what_elsewhere_ends_a_line(tmp_path: Path, made: Path) -> None:
    (tmp_path / "red.png").write_bytes((made / "data" / "pictures" / "red.png").read_bytes())
    line = {"image": "red.png", "prompt": "What\u2028is it?", "text": "It is\x85red."}
    (tmp_path / "speechless.jsonl").write_text(json.dumps(line, ensure_ascii=False) + "\n", encoding="utf-8")
    (sample,) = read([tmp_path]).speechless
    assert (sample.prompt, sample.text) == ("What\u2028is it?", "It is\x85red.")


def test_only_dialogues_or_only_samples_without_sound(made: Path, prepared: Prepared, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "data", dialogues=1)
    (folder / "speechless.jsonl").unlink()
    limits = Limits(50, 120, 2, 0.5)
    with pytest.raises(ConfigError, match="speechless is 0.5, but the data hold no speechless samples"):
        Batches(prepared.config, lambda text: [5], read([folder]), prepared, 0.5, limits, 0)
    with pytest.raises(ConfigError, match=r"no pieces for 5 words of the data \(I, see, a, red, ball\)"):
        Batches(prepared.config, lambda text: [0], read([folder]), prepared, 0.0, limits, 0)
    told = json.loads((folder / "0.json").read_text())
    (folder / "0.json").write_text(json.dumps({"alignments": told["alignments"]}))
    assert read([folder]).pictures == []
