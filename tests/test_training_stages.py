"""Stages of training: a stopped run goes on as if it had not been, and what the image encoder learns from."""

from __future__ import annotations

import dataclasses
import importlib.util
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from moshivis_ros.errors import ConfigError
from moshivis_ros.model.checkpoint import BUILTIN, load_model
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.image_encoder import Siglip
from moshivis_ros.model.tokenizer import Tokenizer
from moshivis_ros.training import dialogues
from moshivis_ros.training.dialogues import Item
from moshivis_ros.training.image_stage import FILE, _labels, _mirrored
from moshivis_ros.training.lm_stage import model_of
from moshivis_ros.training.pictures import BACKGROUND
from moshivis_ros.training.pictures import pictures as tables
from moshivis_ros.training.pool import Pool, pool
from moshivis_ros.training.samples import Composer, Weights
from moshivis_ros.training.train import Settings, network_of, train

CONFIG = Path(__file__).parents[1] / "moshivis_ros" / "training" / "configs" / "builtin"
SIGLIP = ModelConfig.load(CONFIG).siglip
pytestmark = [
    # Not importorskip: mujoco chooses its OpenGL when it is first imported, and the renderer has a say in that.
    pytest.mark.skipif(not importlib.util.find_spec("mujoco"), reason="mujoco is not installed")
]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "pictures.npz"
    pool(path, 12, 1, SIGLIP.image_size, SIGLIP.patch_size, tables)
    return path


@pytest.fixture
def written(drawn: Path, tmp_path: Path) -> Settings:
    """The stage of written questions, small."""
    torch.manual_seed(0)
    save_file(Siglip(SIGLIP).state_dict(), tmp_path / FILE)
    options = {
        "model": str(CONFIG),
        "image_encoder": str(tmp_path / FILE),
        "pictures": str(drawn),
        "count": 12,
        "frames": 40,
        "batch": 2,
    }
    return Settings("lm", str(tmp_path / "once"), steps=4, learning_rate=1e-3, warmup=2, options=options)


def test_a_stopped_run_goes_on_as_if_it_had_not_been(written: Settings, tmp_path: Path) -> None:
    assert train(written)
    parts = dataclasses.replace(written, out=str(tmp_path / "in parts"), minutes=0.0)
    runs = 1
    while not train(parts):  # a step each
        runs += 1
    assert runs == 4
    once, again = network_of(written.out), network_of(parts.out)
    assert once.keys() == again.keys()
    assert all(torch.equal(tensor, again[name]) for name, tensor in once.items())
    other = dataclasses.replace(written, out=str(tmp_path / "other"), seed=1)
    train(other)
    assert not all(torch.equal(tensor, once[name]) for name, tensor in network_of(other.out).items())


def test_adapters_are_trained_on_a_backbone_that_stays_as_it_is(written: Settings, tmp_path: Path) -> None:
    assert train(written)
    options = {**written.options, "train": "adapters", "start": written.out}
    frozen = dataclasses.replace(written, out=str(tmp_path / "adapters"), steps=2, options=options)
    assert train(frozen)
    before, after = network_of(written.out), network_of(frozen.out)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    inside = {name for name in changed if name.startswith("model.")}
    assert inside and all("cross" in name or "proj_xa" in name or "norm_xa" in name for name in inside), (
        inside
    )
    ungated = dataclasses.replace(frozen, stage="ungated_lm", out=str(tmp_path / "ungated"))
    assert train(ungated)
    assert not any(".gate." in name for name in network_of(ungated.out))


def test_a_training_that_goes_astray_is_ended(written: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    astray = dataclasses.replace(written, steps=60, learning_rate=1e30)
    with pytest.raises(ConfigError, match=r"not finite in 20 steps running, up to step \d+: lower learning_rate"):
        train(astray)
    assert capsys.readouterr().err.count("is left out") >= 19


def test_training_goes_on_from_a_checkpoint(written: Settings, tmp_path: Path) -> None:
    options = {**written.options, "start": "builtin", "image_encoder": ""}
    tuned = dataclasses.replace(
        written, out=str(tmp_path / "tuned"), steps=1, learning_rate=0.0, options=options
    )
    assert train(tuned)
    shipped = load_model(BUILTIN, "cpu", torch.float32).state_dict()
    assert all(torch.equal(tensor, shipped[name]) for name, tensor in model_of(tuned.out).items())
    assert (Path(tuned.out) / "tokenizer.model").read_bytes() == (BUILTIN / "tokenizer.model").read_bytes()


def test_the_look_goes_from_thing_to_thing_with_the_words_of_a_description(tmp_path: Path) -> None:
    config = ModelConfig.load(BUILTIN)
    encode = Tokenizer.load(BUILTIN, config).encode
    view = (Item("ball", "red", "on the left"), Item("cup", "blue", "in the middle"))
    rng = random.Random(2)
    exchange = dialogues.describe(rng, view, False)
    sample = Composer(config, encode, None, Weights()).compose(rng, "written", [exchange], 40, False)
    said = {token: frame for frame, token in enumerate(sample.tokens[0].tolist())}  # its last frame
    red, ball, more, blue, cup = (said[encode(word)[0]] for word in ("red", "ball", "and", "blue", "cup"))
    assert exchange.about == (0, 1) and red < ball < more < blue < cup
    assert sample.thing[[red, ball, more, blue, cup, cup + 1]].tolist() == [0, 0, 1, 1, 1, 2]
    decisive = sample.weight == Weights().key
    assert decisive[[red, ball, ball + 1, more, blue, cup, cup + 1]].all() and not decisive[: red - 1].any()


def test_the_labels_of_a_mirrored_picture_are_those_of_what_it_shows(drawn: Path) -> None:
    pictures = pool(drawn, 12, 1, SIGLIP.image_size, SIGLIP.patch_size, tables)
    # The same pictures seen in a mirror: what was the first thing from the left is the last one.
    grid = SIGLIP.grid
    counts = [len(view) for view in pictures.views]
    patches = pictures.patches[:, :, ::-1].copy()
    for table, count in zip(patches, counts):
        table[table >= 0] = count - 1 - table[table >= 0]
    mirror = Pool(
        pictures.pixels[:, :, ::-1].copy(),
        patches,
        tuple(view[::-1] for view in pictures.views),
        tuple(tuple((y, grid - 1 - x) for y, x in centres[::-1]) for centres in pictures.centres),
    )
    assert max(counts) > 1 and (patches[patches < 0] <= BACKGROUND).all()
    wanted, straight = _labels(mirror), _labels(pictures)
    pixels, labels = _mirrored(torch.from_numpy(pictures.pixels), straight)
    for name in wanted:
        assert torch.equal(labels[name][::2], wanted[name][::2]), name
        assert torch.equal(labels[name][1::2], straight[name][1::2]), name
    assert torch.equal(pixels[::2], torch.from_numpy(mirror.pixels[::2]))
    assert torch.equal(pixels[1::2], torch.from_numpy(pictures.pixels[1::2]))
