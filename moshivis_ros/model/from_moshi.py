"""A MoshiVis that has not yet learned to see: the released layout, out of base Moshi and a SigLIP image encoder.

Moshi is read in the layout of kyutai/moshika-pytorch-bf16 (J-Moshi and PersonaPlex are of it), as the files on Hugging Face
hold it or as the moshi library writes it; SigLIP in transformers' layout, alone or inside a larger model (SigLIP with its text
encoder, PaliGemma). What neither of them has is new, as the reference's own modules begin: weights uniform in
+-1 / sqrt(inputs), biases of zeros, norms of ones, and gates that are nearly shut by their offset of -4. Every tensor of the files is used, or
left out for a reason that is named; anything else is refused.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from torch import Tensor

from moshivis_ros.errors import CheckpointError, ConfigError
from moshivis_ros.model import shards
from moshivis_ros.model.adapters import is_adapter
from moshivis_ros.model.checkpoint import explain
from moshivis_ros.model.config import ModelConfig, SiglipConfig
from moshivis_ros.model.lm import MoshiVis
from moshivis_ros.model.weights import MAX_LISTED, open_file, stored_type, unfilled, write

ABOUT = "what Moshi can talk about; its adapters are untrained, so it does not see yet"
# Keys of Moshi's config.json that have another name here, and those that may only be what they are in Moshi.
_RENAMED = {
    "card": "audio_card",
    "existing_text_padding_id": "padding_token_id",
    "existing_text_end_padding_id": "end_of_text_padding_id",
}
_SAME = {
    *("dim", "text_card", "n_q", "num_heads", "num_layers", "hidden_scale", "context", "max_period"),
    *("depformer_dim", "depformer_dim_feedforward", "depformer_num_heads", "depformer_num_layers"),
}
_ONLY: dict[str, tuple[Any, ...]] = {
    "bias_proj": (False,),
    "causal": (True,),
    "conditioners": (None, {}),
    "cross_attention": (False,),
    "demux_second_stream": (False,),
    "demux_second_text_stream": (False,),
    "depformer_gating": ("silu",),
    "depformer_layer_scale": (None,),
    "depformer_low_rank_embeddings": (None,),
    "depformer_multi_linear": (True,),
    "depformer_norm": (None, "rms_norm_f32"),
    "depformer_pos_emb": ("none",),
    "depformer_weights_per_step": (True,),
    "depformer_weights_per_step_schedule": (None,),
    "extra_heads_num_heads": (0,),
    "fuser": (None, {}),
    "gating": ("silu",),
    "layer_scale": (None,),
    "lora": (False,),
    "lora_name": (None, ""),
    "model_type": ("moshi", "personaplex"),
    "norm": ("rms_norm_f32",),
    "norm_emb": (False,),
    "positional_embedding": ("rope",),
    "quantize": (False,),
    "stt_config": (None, {}),
    "text_card_out": (None,),
    "tts_config": (None, {}),
}
_FILES = {"moshi_name": "model", "mimi_name": "mimi_codec", "tokenizer_name": "text_tokenizer"}
_NOT_READ = {
    *("delays", "dep_q", "depformer_causal", "depformer_context", "depformer_max_period", "extra_heads_dim"),
    *("gradient_checkpointing", "lm_gen_config", "mimi_config_name", "model_id", "version", *_FILES),
}
# transformers writes only what differs from these.
_SIGLIP_DEFAULTS = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 16,
    "layer_norm_eps": 1e-6,
    "hidden_act": "gelu_pytorch_tanh",
}
_LEFT_OUT = {  # of SigLIP, or of what it is inside of: by the beginning of the name
    "its pooling head, for MoshiVis looks at all tokens": ("vision_model.head.", "head."),
    "its text encoder": ("text_model.",),
    "what compares pictures with texts": ("logit_scale", "logit_bias"),
    "a buffer": ("vision_model.embeddings.position_ids", "embeddings.position_ids"),
    "the language model around it": ("language_model.", "lm_head.", "multi_modal_projector."),
}
_USER_CODEBOOKS = "the depformer's codebooks for the user's voice, which MoshiVis hears and does not say"


class Source(NamedTuple):
    """Where a tensor comes from: these of a file, one below the other, cut to as many rows as there must be; none: it is
    new.
    """

    file: str  # moshi, siglip, or new
    names: tuple[str, ...] = ()


class Plan(NamedTuple):
    sources: dict[str, Source]  # of every tensor of the released layout, by its name
    left_out: dict[str, list[str]]  # names of tensors that are not used, by the reason


def init_from_moshi(
    folder: Path | str, moshi: str, siglip: str, seed: int = 0, overwrite: bool = False
) -> Plan:
    """Write the checkpoint ``folder`` in the released layout, and return where every tensor came from.

    ``moshi``, ``siglip``: folders or Hugging Face repos. Weights keep Moshi's type; memory holds one tensor at a time. Raises
    CheckpointError and ConfigError, which name what does not fit, before anything is written.
    """
    folder = Path(folder).expanduser()
    if folder.is_file() or (folder.exists() and any(folder.iterdir()) and not overwrite):
        raise CheckpointError(f"{folder} is not an empty folder: choose another, or ask to overwrite it")
    preset = ModelConfig.preset("moshika-vis")
    usual = [preset.model, preset.mimi_codec, preset.text_tokenizer]
    moshi_folder = _found(moshi, ["config.json", *usual, *shards.patterns(preset.model)])
    siglip_folder = _found(siglip, ["config.json", "model*.safetensors", "model.safetensors.index.json"])
    raw = _json(moshi_folder / "config.json") if (moshi_folder / "config.json").is_file() else {}
    files = {ours: str(raw.get(theirs) or getattr(preset, ours)) for theirs, ours in _FILES.items()}
    beside = [moshi_folder / files[name] for name in ("mimi_codec", "text_tokenizer")]
    for path in beside:
        if not path.is_file():
            raise CheckpointError(f"there is no {path.name} in {moshi_folder}: it is no complete Moshi")
    mimi = _json(moshi_folder / raw["mimi_config_name"]) if raw.get("mimi_config_name") else None
    weights = moshi_folder / files["model"]
    with ExitStack() as stack:
        opened = {
            "moshi": stack.enter_context(open_file(weights)),
            "siglip": stack.enter_context(open_file(siglip_folder / "model.safetensors")),
        }
        shapes = {
            which: {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            for which, file in opened.items()
        }
        vision = siglip_config(_json(siglip_folder / "config.json"))
        config = moshi_config(
            raw, vision, mimi, mimi_codec=files["mimi_codec"], text_tokenizer=files["text_tokenizer"]
        )
        with unfilled():
            layout = MoshiVis(config).state_dict()
        found = plan(config, layout, shapes["moshi"], shapes["siglip"])
        _check_types(found, opened)
        dtype = stored_type(weights)
        generator = torch.Generator().manual_seed(seed)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = (
            _made(name, layout[name], found.sources[name], opened, generator).to(dtype) for name in layout
        )
        write({name: tensor.to(dtype) for name, tensor in layout.items()}, folder / config.model, tensors)
    config.save(folder)
    for path in beside:
        shutil.copy(path, folder)
    return found


def moshi_config(
    raw: Mapping[str, Any], siglip: SiglipConfig, mimi: dict[str, Any] | None = None, **files: str
) -> ModelConfig:
    """The network that Moshi's config.json describes (empty: the released Moshi's), with this image encoder.

    Moshi's norms are the root of the mean square everywhere, whatever the same word means in the reference of MoshiVis.
    Raises ConfigError, which names every key that stands for another network.
    """
    wrong = [
        f"{key}: {json.dumps(raw[key])} is no Moshi that can be made to see, only {json.dumps(only[0])}"
        for key, only in _ONLY.items()
        if key in raw and raw[key] not in only
    ]
    wrong += [f"{key} is unknown" for key in raw if key not in {*_RENAMED, *_SAME, *_ONLY, *_NOT_READ}]
    if wrong:
        raise ConfigError("config.json of Moshi: " + "; ".join(wrong))
    values: dict[str, Any] = {
        _RENAMED.get(key, key): raw[key] for key in raw if key in _RENAMED or key in _SAME
    }
    if "delays" in raw:
        values["delays"] = tuple(raw["delays"])
    n_q, dep_q = values.get("n_q", ModelConfig.n_q), raw.get("dep_q", ModelConfig.dep_q)
    values["dep_q"] = n_q // 2 if dep_q == n_q else dep_q  # the first half is the model's own voice
    values |= {"about": ABOUT, "mimi": mimi, "image_size": siglip.image_size, **files}
    return ModelConfig(norm="real_rms_norm_f32", siglip=siglip, **values)


def siglip_config(raw: Mapping[str, Any]) -> SiglipConfig:
    """Of transformers' config.json, of SigLIP alone or of what it is inside of. Raises ConfigError for another encoder."""
    vision = raw.get("vision_config", raw)
    if "siglip" not in str(vision.get("model_type")):
        raise ConfigError(
            f"config.json describes a {vision.get('model_type')!r}, not a SigLIP image encoder: take one such as "
            "google/siglip-so400m-patch14-448"
        )
    if vision.get("model_type") in ("siglip2_vision_model", "siglip2"):
        raise ConfigError("SigLIP 2 of flexible resolution (siglip2) is another network: take a SigLIP")
    return SiglipConfig(**{key: vision.get(key, value) for key, value in _SIGLIP_DEFAULTS.items()})


def plan(
    config: ModelConfig,
    layout: Mapping[str, Tensor],
    moshi: Mapping[str, tuple[int, ...]],
    siglip: Mapping[str, tuple[int, ...]],
) -> Plan:
    """Where every tensor of ``layout`` comes from, by the shapes in the two files.

    Raises CheckpointError, which names what is missing, of another shape, or left over.
    """
    found: dict[str, Source] = {}
    left: dict[str, list[str]] = {}
    problems: list[str] = []
    groups: dict[str, list[tuple[int, str]]] = {}
    for name in moshi:
        ours, part = _of_moshi(name)
        if _of_the_user(ours, part, config.dep_q):
            left.setdefault(_USER_CODEBOOKS, []).append(name)
        else:
            groups.setdefault(ours, []).append((part or 0, name))
    for ours, parts in groups.items():
        found[ours] = Source("moshi", tuple(name for _, name in sorted(parts)))
    for name in siglip:
        bare = re.sub(r"^(model\.)?(vision_tower\.)?", "", name)
        reason = next((reason for reason, begin in _LEFT_OUT.items() if bare.startswith(begin)), None)
        if reason:
            left.setdefault(reason, []).append(name)
        else:
            ours = "image_prefix.enc.model." + bare.removeprefix("vision_model.")
            found[ours] = Source("siglip", (name,))
    shapes = {"moshi": moshi, "siglip": siglip}
    for ours, source in found.items():
        if ours not in layout:
            problems += [f"{name} {list(shapes[source.file][name])} is unexpected" for name in source.names]
    for ours, expected in layout.items():
        if ours not in found and is_adapter(ours):
            found[ours] = Source("new")
        elif ours not in found:
            problems.append(f"{ours} {list(expected.shape)} has nothing that it could come from")
        elif problem := _misfit(ours, expected, found[ours], shapes):
            problems.append(problem)
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems[:MAX_LISTED])
        more = f"\n  ... and {len(problems) - MAX_LISTED} more" if len(problems) > MAX_LISTED else ""
        raise CheckpointError(f"no MoshiVis can be made of these files:{listed}{more}")
    return Plan({name: found[name] for name in layout}, left)


def _of_moshi(name: str) -> tuple[str, int | None]:
    """Our name of a tensor of Moshi; and its place where it is one of several that are one here."""
    part = None
    if several := re.fullmatch(r"(.*\.self_attn\.)(in|out)_projs\.(\d+)\.weight", name):
        name = several[1] + ("in_proj_weight" if several[2] == "in" else "out_proj.weight")
        part = int(several[3])
    if re.match(r"(text_emb|text_linear|out_norm|transformer)\.", name):
        return f"llm.{name}", part
    return re.sub(r"^emb\.", "audio_emb.", re.sub(r"^linears\.", "audio_linears.", name)), part


def _of_the_user(ours: str, part: int | None, own: int) -> bool:
    if ours.startswith("depformer.") and part is not None:
        return part >= own
    if numbered := re.match(r"depformer_emb\.(\d+)\.", ours):
        return int(numbered[1]) >= own - 1
    numbered = re.match(r"(?:depformer_in|audio_linears|depformer\.layers\.\d+\.gating)\.(\d+)\.", ours)
    return numbered is not None and int(numbered[1]) >= own


def _misfit(
    ours: str, expected: Tensor, source: Source, shapes: Mapping[str, Mapping[str, tuple[int, ...]]]
) -> str | None:
    found = [shapes[source.file][name] for name in source.names]
    rows = sum(shape[0] for shape in found)
    # Those of all codebooks in one, the user's behind ours.
    cut = ours.startswith("depformer.") and ".self_attn." in ours and rows == 2 * expected.shape[0]
    fits = all(shape[1:] == expected.shape[1:] for shape in found) and (rows == expected.shape[0] or cut)
    if fits:
        return None
    return f"{' + '.join(source.names)} has the shape {[list(shape) for shape in found]}, {list(expected.shape)} is expected"


def _check_types(found: Plan, files: Mapping[str, Any]) -> None:
    for source in found.sources.values():
        for name in source.names:
            kind = files[source.file].get_slice(name).get_dtype()
            if kind not in ("F64", "F32", "F16", "BF16"):
                raise CheckpointError(
                    f"{name} is of type {kind}: the original is needed, not a quantised one"
                )


def _made(
    name: str, expected: Tensor, source: Source, files: Mapping[str, Any], generator: torch.Generator
) -> Tensor:
    if source.file == "new":
        if name.endswith(".alpha"):
            return torch.ones(expected.shape)
        if expected.dim() == 1:  # the bias of proj_xa
            return torch.zeros(expected.shape)
        return (2 * torch.rand(expected.shape, generator=generator) - 1) / math.sqrt(expected.shape[-1])
    tensor: Tensor = torch.cat([files[source.file].get_tensor(part) for part in source.names])
    cut: Tensor = tensor[: expected.shape[0]]
    return cut


def _found(name_or_folder: str, patterns: list[str]) -> Path:
    folder = Path(name_or_folder).expanduser()
    if folder.is_dir():
        return folder
    if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name_or_folder):
        raise CheckpointError(
            f"there is no folder {folder}: give one, or a Hugging Face repo id (owner/name)"
        )
    try:
        return Path(snapshot_download(name_or_folder, allow_patterns=patterns))
    except (OSError, HFValidationError) as error:  # every error of the hub is an OSError
        raise CheckpointError(
            f"there is no folder {name_or_folder}, and {explain(error, name_or_folder, None)}"
        ) from error


def _json(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path} holds no mapping")
    return raw
