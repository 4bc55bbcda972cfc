"""`moshivis train --plan`: what it tells is what a step takes."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from moshivis_ros.cli import main
from moshivis_ros.errors import ConfigError
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.training.learner import Options
from moshivis_ros.training.plan import count
from moshivis_ros.training.train import Settings

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from training_memory import measured, tracked  # noqa: E402

TINY = ModelConfig.preset("tiny")


@pytest.mark.parametrize(
    ("more", "bfloat16"),
    [({}, False), ({"frozen": "int8", "lora_rank": 8}, True), ({"learn": "all", "batch": 3}, True)],
)
def test_memory_is_what_is_measured(more: dict[str, Any], bfloat16: bool) -> None:
    options = Options("", ("",), **{"seconds": 10.0, "batch": 2, **more})
    planned = count(TINY, options, bfloat16).memory.total
    assert planned == pytest.approx(measured(TINY, options, bfloat16), rel=0.1)


def test_memory_of_the_released_widths_is_what_torch_counts() -> None:
    wide = dataclasses.replace(ModelConfig(), num_layers=2, depformer_num_layers=1)
    options = Options("", ("",), seconds=30.0, batch=2)
    assert count(wide, options, True).memory.total == pytest.approx(tracked(wide, options, True), rel=0.1)


def write(folder: Path, **options: Any) -> str:
    config = {"stage": "adapters", "out": str(folder / "out"), "steps": 3600, "learning_rate": 1e-4}
    config["options"] = {"model": "kyutai/moshika-vis-pytorch-bf16", "data": "nowhere", **options}
    (folder / "plan.yaml").write_text(json.dumps(config))
    return str(folder / "plan.yaml")


def test_full_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No weights, no data: the numbers of the released model, on a card that holds them and on one that does not."""
    config = write(tmp_path, frozen="int8", batch=2, accumulate=4, speechless=0.0)
    assert main(["train", config, "--plan", "--gpu", "rtx4090", "--gpus", "2", "--price", "0.5"]) == 0
    told = capsys.readouterr().out
    assert "206,184,448 parameters learn, 7,687,729,152 are frozen" in told
    memory = {kind: float(size) for kind, size in re.findall(r"^  (\w+) +([\d.]+) GB$", told, re.MULTILINE)}
    assert memory["frozen"] == pytest.approx(8.8, abs=0.05)
    assert memory["learning"] == memory["gradients"] == 0.82 and memory["optimizer"] == 1.65
    assert "24 GB: fits" in told and "16 samples" in told and "57,600 samples" in told
    hours = float(re.search(r"([\d.]+) hours", told)[1])  # type: ignore[index]
    cost = float(re.search(r"at 0.5: ([\d.]+)", told)[1])  # type: ignore[index]
    assert cost == pytest.approx(hours * 2 * 0.5, abs=0.06) and hours > 1
    assert "is not on this machine" in told and not (tmp_path / "out").exists()
    assert main(["train", write(tmp_path, model="builtin"), "--plan"]) == 0
    small = capsys.readouterr().out
    assert small.startswith("378,368 parameters learn, 9,878,656 are frozen") and "hours at" not in small


def test_operations_are_two_a_weight_and_token_and_way() -> None:
    """Forward, forward again and backward to the input; what learns once more for its weights."""
    options = Options("", ("",), seconds=20.0, speechless=0.0, pictures=1)
    cost = count(TINY, options, False)
    weights = 3 * (4 * 64 * 64 + 3 * 64 * 176)  # of the layers, without cross-attention
    least = 3 * 2 * weights * 250
    assert least < cost.operations < 6 * least
    twice = count(TINY, Options("", ("",), seconds=20.0, speechless=0.0, pictures=1, accumulate=2), False)
    assert twice.operations == 2 * cost.operations and twice.memory == cost.memory


def test_what_cannot_be_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from moshivis_ros.training.plan import plan

    with pytest.raises(ConfigError, match="for the stage adapters, not for lm"):
        plan(Settings("lm", "", 1, 1.0), "h100", 1, 0)
    assert main(["train", write(tmp_path), "--plan", "--gpu", "abacus"]) == 2
    assert "rtx4090" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["paper", "24gb", "kitchen"])
def test_the_examples_are_what_the_stage_takes(name: str) -> None:
    path = Path(__file__).parents[1] / "moshivis_ros" / "training" / "configs" / f"adapters_{name}.yaml"
    settings = Settings.load(path)
    options = Options.of(settings.options)
    assert settings.stage == "adapters" and settings.learning_rate < 1e-3
    assert options.frozen == ("as computed" if name == "paper" else "int8")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("learning_rate: 1e-4", "learning_rate: a number is expected, found '1e-4'"),  # yaml wants 1.0e-4
        ("steps: many", "steps: a whole number is expected"),
        ("betas: [0.9, high]", "betas"),
        ("warm: 3", "warm"),
    ],
)
def test_a_configuration_is_typed(tmp_path: Path, line: str, words: str) -> None:
    lines = {"stage": "adapters", "out": "o", "steps": "3", "learning_rate": "0.1"}
    key, _, value = line.partition(": ")
    (tmp_path / "c.yaml").write_text("".join(f"{k}: {v}\n" for k, v in {**lines, key: value}.items()))
    with pytest.raises(ConfigError, match=re.escape(words)):
        Settings.load(tmp_path / "c.yaml")
