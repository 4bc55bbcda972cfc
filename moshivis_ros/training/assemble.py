"""Put the results of the stages together: an ordinary checkpoint folder, the LM stored in bfloat16."""

from __future__ import annotations

import argparse
import dataclasses
import random
import re
import shutil
from pathlib import Path

from moshivis_ros.model.checkpoint import save_model
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.lm import MoshiVis
from moshivis_ros.training.dialogues import exchange, random_view, unknown
from moshivis_ros.training.lm_stage import model_of


def assemble(config: ModelConfig, lm: Path, codec: Path | None, folder: Path) -> None:
    """``lm``, ``codec``: out folders of those stages (codec None: for written prompts only)."""
    model = MoshiVis(config)
    model.load_state_dict(model_of(lm))
    save_model(model.bfloat16(), folder)
    shutil.copy(lm / config.text_tokenizer, folder)
    if (
        codec is not None
    ):  # stays float32: rounded, it would write other tokens than the LM has learned to read
        shutil.copy(codec / config.mimi_codec, folder)


def words_said() -> str:
    """The words of all answers, for config.yaml: what the model has learned to say."""
    rng = random.Random(0)
    answers = [exchange(rng, random_view(rng)).answer for _ in range(20000)] + [unknown(rng, False).answer]
    return " ".join(sorted({word for answer in answers for word in re.findall("[a-z]+", answer.lower())}))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Writes a checkpoint folder from trained stages."
    parser.add_argument("folder")
    parser.add_argument("--model", required=True, help="folder of config.yaml")
    parser.add_argument("--lm", required=True, help="out folder of the stage lm")
    parser.add_argument("--codec", help="out folder of the stage codec")
    parser.add_argument(
        "--gate", nargs=2, type=float, metavar=("LOW", "HIGH"), help="measured by moshivis eval"
    )


def run(args: argparse.Namespace) -> int:
    config = dataclasses.replace(ModelConfig.load(args.model), trained=True, says=words_said())
    if args.gate:
        config = dataclasses.replace(config, gate_low=args.gate[0], gate_high=args.gate[1])
    folder = Path(args.folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    assemble(config, Path(args.lm), Path(args.codec) if args.codec else None, folder)
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    print(f"{folder}: {size:.1f} MB")
    return 0


if __name__ == "__main__":
    main = argparse.ArgumentParser()
    add_arguments(main)
    raise SystemExit(run(main.parse_args()))
