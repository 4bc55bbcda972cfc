"""Write a checkpoint with random weights, to try the plumbing and to test without the released weights."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from torch import Tensor

from moshivis_ros.errors import CheckpointError, ConfigError
from moshivis_ros.model.codec import build_mimi, released_layout
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.lm import MoshiVis
from moshivis_ros.model.weights import write

TEXT_CARD = 384  # 256 bytes, 4 special pieces, and what the sentences below give
# What the words lead to, and lead away from: see _random_lm.
LED = ("audio_emb.", "llm.text_emb.", "llm.text_linear.")
SENTENCES = """
Hello, I am a robot and I can see you.
What do you see in front of you right now?
I see a red ball on the table, next to a blue cup.
There are two green boxes behind the chair, and one of them is open.
Where is the yellow book? It is on the left, under the window.
How many people are in the room? I can see three of them.
The small dog is sleeping on the big sofa.
Can you tell me the colour of the car? It is white.
Please look at the picture again, something has changed.
The door was closed a moment ago, and now it is open.
I do not know what that is, could you move it a little closer?
Thank you, that was very kind of you. You are welcome.
A woman is walking through the park with her bicycle.
The light is off, so I cannot see very well from here.
That looks like a cat, but I am not sure about it.
Good morning, how are you today? I am fine, thanks for asking.
""".strip().splitlines()

SIZES = {  # configuration, and type of the weights as in such a file
    "tiny": (dataclasses.replace(ModelConfig.preset("tiny"), text_card=TEXT_CARD), torch.float32),
    "full": (dataclasses.replace(ModelConfig.preset("moshika-vis"), trained=False), torch.bfloat16),
}


def init_checkpoint(folder: Path | str, size: str = "tiny", seed: int = 0, overwrite: bool = False) -> Path:
    """Write an untrained checkpoint to ``folder``, in the released layout, and return the folder.

    ``size`` is tiny, or full: the released model's, 17.0 GB in bfloat16, made tensor by tensor. The same seed gives the
    same files. Raises ConfigError for another size, and CheckpointError for a folder that is not empty, unless
    ``overwrite``, which replaces the checkpoint's own files and leaves others alone.
    """
    if size not in SIZES:
        raise ConfigError(f"size {size!r} is none for random weights: choose one of {', '.join(SIZES)}")
    config, dtype = SIZES[size]
    folder = Path(folder).expanduser()
    if folder.is_file() or (folder.exists() and any(folder.iterdir()) and not overwrite):
        raise CheckpointError(f"{folder} is not an empty folder: choose another, or ask to overwrite it")
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    config.save(folder)
    _write_lm(config, generator, folder / config.model, dtype)
    save_file(_random_mimi(config, generator), folder / config.mimi_codec)
    (folder / config.text_tokenizer).write_bytes(_train_tokenizer(config))
    return folder


def _write_lm(config: ModelConfig, generator: torch.Generator, path: Path, dtype: torch.dtype) -> None:
    with torch.device("meta"):
        layout = MoshiVis(config).state_dict()
    order = sorted(layout, key=lambda name: (name.startswith(LED), name))  # the order in which they are made
    tensors = (tensor.to(dtype) for tensor in _random_lm(config, layout, generator))
    write({name: layout[name].to(dtype) for name in order}, path, tensors)


def _random_lm(config: ModelConfig, layout: dict[str, Tensor], generator: torch.Generator) -> Iterator[Tensor]:
    """One after the other, those of LED at the end."""
    led = {}
    for name, tensor in drawn(layout, generator):
        if name.startswith(LED):
            led[name] = tensor
            continue
        if ".gate.alpha." in name or ".mha.in_proj_weight" in name:
            tensor.mul_(3)  # against the gate's offset of -4: without it no picture would ever show
        yield tensor
    # Much padding, as in real speech: what all audio tokens have in common leads to the padding token, which
    # itself leads away from it, so that the model neither babbles nor falls silent for good.
    common = torch.randn(config.dim, generator=generator).sign()
    for name, tensor in led.items():
        if name.startswith("audio_emb."):
            tensor.add_(0.15 * common)
        elif name.startswith("llm.text_emb."):
            tensor[config.padding_token_id] -= 1.6 * common
        else:
            tensor.mul_(3)
            tensor[config.padding_token_id] = 60 * common / config.dim
        yield tensor


@torch.no_grad()
def _random_mimi(config: ModelConfig, generator: torch.Generator) -> dict[str, Tensor]:
    with torch.device("meta"):
        mimi = build_mimi(config)
    state = dict(drawn(released_layout(mimi.state_dict()), generator))
    mimi.load_state_dict(state, assign=True)
    # Random codes shall sound like quiet noise, without an offset.
    pcm = mimi.decode(torch.randint(config.audio_card, (1, mimi.num_codebooks, 50), generator=generator))
    last = f"decoder.model.{len(mimi.decoder.model) - 1}.conv.conv"
    state[f"{last}.weight"].mul_(0.05 / pcm.std())
    state[f"{last}.bias"].sub_(pcm.mean()).mul_(0.05 / pcm.std())
    return state


def drawn(layout: dict[str, Tensor], generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    """Random values that keep the size of a signal, by name. No weight is zero: zeros hide mistakes."""
    for name in sorted(layout):
        shape = layout[name].shape
        values = torch.randn(shape, generator=generator)
        if name.endswith("bias"):
            values *= 0.02
        elif len(shape) == 1 or name.endswith(".alpha"):  # norms, layer scales, usage of the codebooks
            values = 1 + 0.1 * values
        elif "emb." in name:
            values *= 0.5
        elif not name.endswith("embedding_sum"):
            values /= shape[1:].numel() ** 0.5
        yield name, values


def _train_tokenizer(config: ModelConfig) -> bytes:
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES),
        model_writer=model,
        model_type="bpe",
        vocab_size=config.text_card,
        # sentences as few as these have no more pieces than TEXT_CARD
        user_defined_symbols=[f"▁word{number}" for number in range(config.text_card - TEXT_CARD)],
        byte_fallback=True,
        unk_id=config.end_of_text_padding_id,
        bos_id=1,
        eos_id=2,
        pad_id=config.padding_token_id,
        normalization_rule_name="identity",
        num_threads=1,
        minloglevel=2,
    )
    proto = model.getvalue()
    assert SentencePieceProcessor(model_proto=proto).get_piece_size() == config.text_card
    return proto
