"""Checkpoints and config.yaml.

Every key of config.yaml is checked by type and range: one error names all that are wrong, with what is expected and found.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
import yaml
from case import Case, refused
from safetensors.torch import load_file, save_file

from moshivis_ros import cli
from moshivis_ros.model.checkpoint import load_model, quantize_checkpoint
from moshivis_ros.model.codec import build_mimi
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.init import init_checkpoint


@cache
def tiny() -> Path:
    return init_checkpoint(Path(mkdtemp()) / "tiny")


def config(**changes: Any) -> Callable[[Path], Path]:
    """The tiny model's config.yaml with these changes; `a__b` is the key b of the section a."""

    def make(folder: Path) -> Path:
        raw = yaml.safe_load((tiny() / "config.yaml").read_text())
        for key, value in changes.items():
            *sections, last = key.split("__")
            place = raw
            for section in sections:
                place = place[section]
            place[last] = value
        (folder / "config.yaml").write_text(yaml.safe_dump(raw))
        return folder

    return make


def text(content: str | bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "config.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
        return folder

    return make


def wrong(*words: str) -> Callable[[Path], None]:
    return refused(ModelConfig.load, "config.yaml", *words)


WRONG = (  # key, value, what is expected, what is found
    ("dim", 64.0, "a whole number from 1 to 1000000", "64.0"),
    ("num_layers", "2", "a whole number from 1 to 1000", "'2'"),
    ("context", 0, "a whole number from 1 to 1000000", "0"),
    ("context", "1e3", "a whole number from 1 to 1000000", "'1e3'"),
    ("num_heads", True, "a whole number", "True"),
    ("model", None, "a text of 1 to 255 characters", "null"),
    ("model", "", "a text of 1 to 255 characters", "''"),
    ("trained", "no", "true or false", "'no'"),
    ("hidden_scale", float("nan"), "a number from 1e-12", "nan"),
    ("text_temperature", float("inf"), "a number from 0 to 10", "inf"),
    ("gate_high", 2, "a number from 0 to 1", "2"),
    ("norm", "layer_norm", "one of rms_norm", "'layer_norm'"),
    ("delays", "0, 1", "a list", "'0, 1'"),
    ("delays", [0.5] * 17, "a list, of each item a whole number", "a list"),
    ("siglip", 3, "SiglipConfig", "3"),
    ("siglip__patch_size", 0, "a whole number from 1", "0"),
    ("mimi", [1], "a mapping or null", "a list"),
    ("mimi__seanet__dimension", 32.5, "a whole number", "32.5"),
    ("mimi__seanet__ratios", 4, "a list like [4, 5, 6, 8]", "4"),
)


def no_codec(folder: Path) -> None:
    refused(lambda folder: build_mimi(ModelConfig.load(folder)), "mimi", "config.yaml")(folder)


def copied(folder: Path, leave_out: tuple[str, ...] = ()) -> Path:
    for path in tiny().iterdir():
        if path.name not in leave_out:
            (folder / path.name).write_bytes(path.read_bytes())
    return folder


def sharded(folder: Path) -> Path:
    """The tiny checkpoint with its model in three files and an index, as Hugging Face writes it."""
    tensors = load_file(copied(folder, ("model.safetensors",)) and tiny() / "model.safetensors")
    names = sorted(tensors)
    where = {}
    for n in range(3):
        file = f"model-{n + 1:05}-of-00003.safetensors"
        part = names[n::3]
        save_file({name: tensors[name] for name in part}, folder / file)
        where |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 1}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def same_model(folder: Path) -> None:
    whole, parts = (load_model(place, "cpu", torch.float32).state_dict() for place in (tiny(), folder))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    quantize_checkpoint(folder, folder / "int8", "int8")
    assert (folder / "int8/model.safetensors").is_file()


def without(*files: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        sharded(folder)
        for file in files:
            (folder / file).unlink()
        return folder

    return make


def index_of(content: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (sharded(folder) / "model.safetensors.index.json").write_text(content)
        return folder

    return make


def loaded(folder: Path) -> Any:
    return load_model(folder, "cpu", torch.float32)


def poisoned(value: float, file: str = "model.safetensors") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        tensors = load_file(copied(folder) / file)
        name = "llm.text_linear.weight" if file == "model.safetensors" else sorted(tensors)[0]
        tensors[name].view(-1)[5] = value
        save_file(tensors, folder / file)
        return folder

    return make


def refused_by_chat(*words: str) -> Callable[[Path], None]:
    def check(folder: Path) -> None:
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            code = cli.main(["chat", "--model", str(folder), "--audio", str(question()), "--tail", "0"])
        assert code == 2 and all(word in said.getvalue() for word in words), said.getvalue()

    return check


def question() -> Path:
    return Path(__file__).resolve().parents[2] / "media/question.wav"


CONFIG, FILE = ("config",), ("file",)

CASES = [
    *(
        Case(f"config.yaml: `{key.replace('__', '.')}: {json.dumps(value)}`", CONFIG, "refused", f"{expected} is expected",
             config(**{key: value}), wrong(key.replace("__", "."), f"{expected}", "is expected", f"found {found}"))
        for key, value, expected, found in WRONG
    ),
    Case("config.yaml: several wrong keys", CONFIG, "refused", "all are named in one error",
         config(dim=64.0, context=0, trained="no"), wrong("dim: ", "context: ", "trained: ")),
    Case("config.yaml: unknown keys", CONFIG, "refused", "named, with those that are meant", config(num_head=4, dimm=3),
         wrong("'num_head', did you mean 'num_heads'?", "'dimm', did you mean 'dim'?")),
    Case("config.yaml: a setting of another network", CONFIG, "refused", "with the only value that is supported",
         config(xa_gating="tanh"), wrong("xa_gating: 'tanh' is not supported, only 'sigmoid'")),
    Case("config.yaml: sizes that do not fit each other", CONFIG, "refused", "both are named", config(num_heads=5),
         wrong("dim (64) must be a multiple of num_heads (5)")),
    Case("config.yaml: a section mimi that makes no codec", CONFIG, "refused", "named", config(mimi__seanet__ratios=[0, 1]),
         no_codec),
    Case("config.yaml: no mapping, no yaml, no text", CONFIG, "refused", "named", text("[1, 2]"), wrong("mapping", "a list")),
    Case("config.yaml: broken yaml", CONFIG, "refused", "with the line", text("dim: 3\na: [1,"), wrong("line")),
    Case("config.yaml: bytes that are no UTF-8", CONFIG, "refused", "named", text(b"dim: \xff\xfe"), wrong("utf-8")),
    Case("config.yaml: nested without end", CONFIG, "refused", "named", text("[" * 2000), wrong("")),
    Case("config.yaml: a folder of that name", CONFIG, "refused", "named",
         lambda folder: (folder / "config.yaml").mkdir() or folder, wrong("directory")),
    Case("a model in several safetensors files with model.safetensors.index.json", FILE, "read", "as if it were one file", sharded,
         same_model),
    Case("some of these files are missing", FILE, "refused", "all that are missing are named",
         without("model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors"),
         refused(loaded, "model-00001-of-00003.safetensors, model-00003-of-00003.safetensors", "download")),
    Case("an index that is none", FILE, "refused", "named", index_of("{]"), refused(loaded, "index.json is not an index")),
    Case("an index that names no files", FILE, "refused", "named", index_of('{"weight_map": {}}'), refused(loaded, "none at all")),
    *(
        Case(f"weights that hold {word}", FILE, "refused", "the tensor is named, with how many; nothing is said with them",
             poisoned(value), refused_by_chat("llm.text_linear.weight", "1 of the", "NaN or infinite"))
        for word, value in (("NaN", float("nan")), ("infinity", float("-inf")))
    ),
    Case("a codec whose weights hold NaN", FILE, "refused", "the same",
         poisoned(float("nan"), ModelConfig.preset("tiny").mimi_codec), refused_by_chat("NaN or infinite", "1 of the")),
]  # fmt: skip
