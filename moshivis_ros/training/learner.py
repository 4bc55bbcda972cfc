"""What learns, on a frozen rest: the network of the stage adapters, and its losses.

The losses of a batch are sums; what they are divided by is counted apart, over everything that a step sees. So the gradient is
that of the whole step, however it is shared out among processes and parts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moshivis_ros.errors import ConfigError, MissingDependencyError
from moshivis_ros.model import schema
from moshivis_ros.model.adapters import Adapters, is_adapter
from moshivis_ros.model.config import Share, Size
from moshivis_ros.model.lm import MoshiVis
from moshivis_ros.model.quantize import rounded_int8
from moshivis_ros.model.schema import Range
from moshivis_ros.training.batches import NOTHING, RATE, Batch, Limits
from moshivis_ros.training.forward import Sight, audio_logits, columns, targets, temporal

BYTES_PER_SECOND = 48_000  # of one voice
Weight = Annotated[float, Range(0, 1000)]
# What a step is summed up to: losses of text and own sound, gates outside and inside of answers about a picture, losses of
# words by form.
SUMS = ("text", "audio", "gate outside", "gate inside", "written", "spoken")


@dataclass(frozen=True)
class Options:
    """Of the stage adapters. All paths are relative to where the command is run."""

    model: str  # checkpoint to go on from: folder or Hugging Face repo
    data: tuple[str, ...]  # folders, see folder.py
    adapters: str = ""  # trained ones to go on from
    cache: str = ""  # folder of what is computed once (see prepared.py); default: `cache` in the stage's own
    learn: Literal["adapters", "gates", "all"] = "adapters"  # all: all but the image encoder
    lora_rank: Annotated[int, Range(0, 4096)] = 0  # of LoRA on the frozen transformer; 0: none
    lora_scale: Weight = 2.0
    frozen: Literal["as computed", "int8"] = "as computed"  # type of the frozen linear layers
    batch: Size = 1  # samples that a process holds at a time
    accumulate: Size = 1  # of them to a step
    seconds: Annotated[float, Range(0.5, 240)] = 30.0  # of a spoken sample; of longer ones a part is drawn
    speechless_frames: Size = 256
    pictures: Annotated[int, Range(1, 16)] = 2  # of a spoken sample
    text_ahead: Annotated[int, Range(0, 25)] = 0  # frames of a word's text before its sound, as the model has learned it
    speechless: Share = 0.5  # share of the samples that are written
    text_weight: Weight = 1.0
    audio_weight: Weight = 1.0  # 0: the own voice is not even computed
    padding_weight: Weight = 0.5  # of padding in the text loss, against words
    first_codebook: Weight = 1.0  # weight of codebook 1 against each of the others
    gate_weight: Weight = 0.0  # of the gates outside answers about a picture: looking costs
    gate_scale: Weight = 1.0  # learning rate of the gates against that of the rest
    hear_every: Size = 500  # steps after which a sample is written that can be heard
    wandb: str = ""  # project of Weights & Biases that is told the log as well

    @classmethod
    def of(cls, raw: dict[str, Any]) -> Options:
        """From a configuration file. Raises ConfigError, which names every key that is wrong."""
        known = {field.name for field in dataclasses.fields(cls)}
        problems = [f"unknown key {key!r}" for key in raw if key not in known]
        problems += [f"{key} is missing" for key in ("model", "data") if key not in raw]
        if not problems:
            data = raw["data"]
            options = cls(**{**raw, "data": (data,) if isinstance(data, str) else tuple(data)})
            problems = list(schema.problems(options))
            if options.frozen == "int8" and options.learn == "all":
                problems.append("frozen: int8 weights cannot learn: leave out learn: all")
        if problems:
            raise ConfigError("options of the stage adapters: " + "; ".join(problems))
        return options

    def heard_bytes(self, steps: int) -> int:
        """Of the samples that can be heard, at most."""
        return round((steps // self.hear_every + 1) * self.seconds * 2 * BYTES_PER_SECOND)

    @property
    def limits(self) -> Limits:
        return Limits(
            round(self.seconds * RATE), self.speechless_frames, self.pictures, self.padding_weight, self.text_ahead
        )


class Frozen8(nn.Linear):
    """A linear layer that does not learn, in int8 as in the project's int8 checkpoints (see quantize.StoredWeight).

    The gradient passes it, and nothing is kept for that. It is a Linear without a weight because peft puts LoRA beside those only.
    """

    values: Tensor
    scales: Tensor

    def __init__(self, values: Tensor, scales: Tensor) -> None:
        nn.Module.__init__(self)
        self.out_features, self.in_features = values.shape
        self.register_parameter("weight", None)
        self.register_parameter("bias", None)
        self.register_buffer("values", values)
        self.register_buffer("scales", scales)

    @property
    def qweight(self) -> Tensor:
        """By this name peft finds where it is."""
        return self.values

    def forward(self, x: Tensor) -> Tensor:  # [..., columns] -> [..., rows]
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        out: Tensor = _Times8.apply(x, self.values, self.scales)  # type: ignore[no-untyped-call]
        return out


class _Times8(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, scales: Tensor) -> Tensor:
        ctx.save_for_backward(values, scales)
        return (x @ values.to(x.dtype).T) * scales.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        values, scales = ctx.saved_tensors
        return (gradient * scales.to(gradient.dtype)) @ values.to(gradient.dtype), None, None


def shrinker(model: MoshiVis) -> Callable[[nn.Module], None]:
    """What puts int8 layers in place of the linear layers of a part of the frozen transformer, once they are filled."""
    layers = frozen_layers(model)

    def shrink(part: nn.Module) -> None:
        put_int8(part, {layer for layer in layers if not layer.weight.is_meta}, rounded_int8)

    return shrink


def frozen_layers(model: MoshiVis) -> set[nn.Linear]:
    """The linear layers of the transformer that were Moshi's."""
    named = model.llm.transformer.named_modules()
    return {each for name, each in named if isinstance(each, nn.Linear) and not is_adapter(f".{name}.")}


def put_int8(
    part: nn.Module, layers: set[nn.Linear], rounded: Callable[[Tensor], tuple[Tensor, Tensor]]
) -> None:
    """Replace these layers inside ``part``; ``rounded`` gives values and scales of a weight."""
    for parent in list(part.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Linear) and layer in layers:
                setattr(parent, name, Frozen8(*rounded(layer.weight.detach())))


def learns(name: str, learn: str) -> bool:
    """Does the parameter of this name learn?"""
    if learn == "all":
        return ".enc." not in name
    return is_adapter(name) and (learn == "adapters" or ".gate." in name)


def freeze(model: MoshiVis, options: Options) -> None:
    """What learns gets float32 and gradients, and LoRA its layers. Raises MissingDependencyError without peft for these."""
    _train_only(model, lambda name: learns(name, options.learn))
    if not options.lora_rank:
        return
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingDependencyError("lora_rank needs the peft library: pip install peft") from error
    config = LoraConfig(
        r=options.lora_rank,
        lora_alpha=options.lora_scale * options.lora_rank,  # type: ignore[arg-type]
        target_modules=r"layers\.\d+\.(self_attn\.(in|out)_proj|gating\.linear_(in|out))",
    )
    wanted = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    inject_adapter_in_model(config, model.llm.transformer)
    _train_only(model, lambda name: name in wanted or ".lora_" in name)  # peft has frozen all but its own


def _train_only(model: nn.Module, wanted: Callable[[str], bool]) -> None:
    for above, module in list(model.named_modules()):
        for key, parameter in list(module.named_parameters(above, recurse=False)):
            if wanted(key):
                module.register_parameter(key.rpartition(".")[2], nn.Parameter(parameter.detach().float()))
            else:
                parameter.requires_grad_(False)


def describe(model: nn.Module) -> str:
    """How many parameters learn, and of how many."""
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    frozen += sum(b.numel() for name, b in model.named_buffers() if name.endswith("values"))  # in int8
    return f"{learning:,} parameters learn, {frozen:,} are frozen"


def trained(model: MoshiVis, options: Options, dtype: torch.dtype) -> Adapters:
    """What has been learned, in the type of a checkpoint."""
    tensors = {
        name: t.detach().to(dtype) for name, t in model.state_dict().items() if learns(name, options.learn)
    }
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            base, _, rest = name.partition(".lora_")
            # The self-attention's own name for it, see layers.store_as_one.
            base = f"{base}_weight" if base.endswith("self_attn.in_proj") else f"{base}.weight"
            tensors[f"{base}.lora_{rest[0].lower()}"] = parameter.detach().to(dtype)
    return Adapters(tensors, options.lora_scale)


class Learner(nn.Module):
    """The model with its losses. ``bfloat16``: computes in it."""

    def __init__(self, model: MoshiVis, options: Options, bfloat16: bool) -> None:
        super().__init__()
        self.model, self.options, self.autocast = model, options, bfloat16

    def groups(self) -> list[dict[str, Any]]:
        """Parameter groups of the optimizer; `scale` multiplies the learning rate."""
        named = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        groups: dict[str, list[nn.Parameter]] = {"gates": [], "flat": [], "rest": []}
        for name, p in named:
            groups["gates" if ".gate." in name else "flat" if p.dim() != 2 else "rest"].append(p)
        each = {"gates": {"scale": self.options.gate_scale}, "flat": {"weight_decay": 0.0}, "rest": {}}
        return [{"params": params, **each[name]} for name, params in groups.items() if params]

    def counts(self, batch: Batch) -> Tensor:
        """What the SUMS of the batch are means over, once divided: [SUMS] float64."""
        words = batch.weight * (batch.weight >= 1)
        heard = torch.tensor(len(batch.heard) if self.options.audio_weight else 0)
        inside = [(batch.visual == which).sum() for which in (0, 1)]
        forms = [(words.T * rows).sum() for rows in (~batch.spoken, batch.spoken)]
        return torch.stack([batch.weight.sum(), heard, *inside, *forms]).double()

    def forward(self, batch: Batch) -> Tensor:
        """The SUMS of the batch, float32."""
        device = batch.tokens.device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.autocast):
            return self._sums(batch)

    def _sums(self, batch: Batch) -> Tensor:
        config, tokens = self.model.config, batch.tokens
        out = temporal(self.model, columns(tokens, config), self.sight(batch), lean=True)
        each = F.cross_entropy(
            out.text_logits.float().flatten(0, 1), tokens[:, 0].flatten(), reduction="none"
        )
        each = each.view_as(batch.weight)
        words = each.detach() * (batch.weight >= 1)
        gates = out.gates.mean(1)
        inside = [(gates * (batch.visual == which)).sum() for which in (0, 1)]
        forms = [(words.T * rows).sum() for rows in (~batch.spoken, batch.spoken)]
        audio = self._audio(batch, out.hidden)
        return torch.stack([(each * batch.weight).sum(), audio, *inside, *forms])

    def _audio(self, batch: Batch, hidden: Tensor) -> Tensor:
        own, heard = self.model.config.dep_q, batch.heard
        if not len(heard) or not self.options.audio_weight:
            return hidden.new_zeros((), dtype=torch.float32)
        wanted = targets(batch.tokens, self.model.config)[:, 1:].transpose(1, 2)
        wanted = wanted.flatten(0, 1)[heard]  # [M, dep_q]
        text = batch.tokens[:, 0].flatten()[heard]
        hidden = hidden.flatten(0, 1)[heard]
        logits = audio_logits(self.model, hidden, text, wanted.clamp(min=0), lean=True)
        losses = F.cross_entropy(
            logits.float().flatten(0, 1), wanted.flatten(), ignore_index=NOTHING, reduction="none"
        )
        importance = torch.ones(own, device=hidden.device)
        importance[0] = self.options.first_codebook
        return (losses.view_as(wanted) * importance).sum() / importance.sum()

    def sight(self, batch: Batch) -> Sight:
        """The pictures that are seen, and when."""
        prefix, transformer = self.model.image_prefix, self.model.llm.transformer
        slots, patches = batch.pictures.shape[1:3]
        pictures = batch.pictures.flatten(1, 2)
        if not self.autocast:
            pictures = pictures.float()
        k, v = transformer.shared_cross_attention.keys_values(prefix.norm_xa(prefix.proj_xa(pictures)))
        mask = None
        if slots > 1:
            slot = torch.arange(slots, device=pictures.device).repeat_interleave(patches)
            # Frames that see nothing look at the first one, and their gates are shut: no row may be empty.
            mask = batch.shown.clamp(min=0)[:, None, :, None] == slot
        return Sight(k, v, mask, (batch.shown >= 0).to(k.dtype)[..., None])

    def loss(self, sums: Tensor, counts: Tensor) -> Tensor:
        """What is minimised."""
        text, audio, outside, *_ = (sums / counts.clamp(min=1).to(sums.dtype)).unbind()
        options = self.options
        return options.text_weight * text + options.audio_weight * audio + options.gate_weight * outside
