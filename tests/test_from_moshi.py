"""`moshivis init --from-moshi`: out of files that moshi and transformers themselves write, at small and at full size."""

from __future__ import annotations

import json
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from moshivis_ros.cli import main
from moshivis_ros.errors import CheckpointError, ConfigError
from moshivis_ros.model.checkpoint import load_model
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.from_moshi import init_from_moshi, moshi_config, plan, siglip_config
from moshivis_ros.model.init import SIZES, init_checkpoint
from moshivis_ros.model.lm import MoshiVis
from moshivis_ros.model.stream import Stream
from moshivis_ros.training.forward import audio_logits, columns, targets, temporal

loaders = pytest.importorskip("moshi.models.loaders")
transformers = pytest.importorskip("transformers")

TINY = SIZES["tiny"][0]
MOSHI = {
    **loaders._lm_kwargs,
    "dim": 64,
    "num_heads": 4,
    "num_layers": 3,
    "context": 250,
    "text_card": TINY.text_card,
    "card": 64,
    "depformer_dim": 32,
    "depformer_dim_feedforward": 132,
    "depformer_num_heads": 2,
    "depformer_num_layers": 2,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
}


def released_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As in the files on Hugging Face, which moshi splits when it reads them: the projections of all codebooks in one."""
    joined: dict[str, list[Tensor]] = {}
    for name, tensor in state.items():
        base, _, rest = name.partition(".in_projs.")
        out, _, rest_out = name.partition(".out_projs.")
        key = f"{base}.in_proj_weight" if rest else f"{out}.out_proj.weight" if rest_out else name
        joined.setdefault(key, []).append(tensor)
    return {name: torch.cat(tensors).contiguous() for name, tensors in joined.items()}


def write_moshi(folder: Path, names: Callable[[dict[str, Tensor]], dict[str, Tensor]], **other: Any) -> Any:
    """A complete Moshi of random weights. Returns moshi's own model."""
    init_checkpoint(folder)  # for Mimi and the tokenizer
    (folder / "config.yaml").unlink()
    torch.manual_seed(3)
    moshi = loaders.get_moshi_lm(None, {**MOSHI, **other}, dtype=torch.float32)
    for parameter in moshi.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    save_file(names(moshi.state_dict()), folder / "model.safetensors")
    (folder / "mimi.json").write_text(json.dumps(TINY.mimi))
    config = {**MOSHI, **other, "mimi_config_name": "mimi.json", "model_type": "moshi"}
    (folder / "config.json").write_text(json.dumps(config))
    return moshi


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("siglip")
    torch.manual_seed(4)
    model = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**VISION)).eval()
    model.save_pretrained(folder)
    return folder, model


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("moshi")
    return folder, write_moshi(folder, released_names)


def test_talks_as_moshi_and_sees_as_siglip(
    base: tuple[Path, Any], siglip: tuple[Path, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "untrained"
    assert main(["init", str(out), "--from-moshi", str(base[0]), "--siglip", str(siglip[0])]) == 0
    printed = capsys.readouterr().out
    assert "left out: its pooling head" in printed and "tensors of nothing: untrained" in printed
    model = load_model(out, "cpu", torch.float32)
    assert model.config.trained and "does not see" in model.config.about
    tokens = torch.randint(64, (2, 17, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = base[1](tokens)
        ours = temporal(model, columns(tokens, model.config), None)
        assert (ours.text_logits - theirs.text_logits[:, 0]).abs().max() < 1e-4
        wanted = targets(tokens, model.config)[:, 1:].transpose(1, 2)
        valid = (wanted >= 0).all(-1)
        sound = audio_logits(model, ours.hidden[valid], tokens[:, 0][valid], wanted[valid])
        at = torch.arange(9).expand(2, 9)[
            valid
        ]  # theirs belong to the tokens, ours to the step that makes them
        row = torch.arange(2)[:, None].expand(2, 9)[valid]
        for codebook in range(8):
            delay = model.config.delays[1 + codebook]
            same = theirs.logits[row, codebook, at - delay]
            assert (sound[:, codebook] - same).abs().max() < 1e-4, codebook
        pixels = torch.rand(1, 3, 56, 56) * 2 - 1
        seen = siglip[1](pixels).last_hidden_state
        assert (model.image_prefix.enc.model(pixels) - seen).abs().max() < 1e-5
        stream = Stream(model)
        stream.set_image(model.image_kv(pixels))
        gates = [stream.step(torch.randint(64, (1, 8))).gates for _ in range(3)]
    assert 0.01 < torch.cat(gates).mean() < 0.03, (
        "the gates are nearly shut, by their offset: sigmoid(-4) is 0.018"
    )


def test_what_moshi_writes_today_is_read_as_what_it_reads(
    base: tuple[Path, Any], siglip: tuple[Path, Any], tmp_path: Path
) -> None:
    write_moshi(tmp_path / "moshi", dict)
    for source, out in ((base[0], "a"), (tmp_path / "moshi", "b")):
        init_from_moshi(tmp_path / out, str(source), str(siglip[0]))
    one, two = (load_file(tmp_path / out / "model.safetensors") for out in "ab")
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("names", [released_names, dict])
def test_codebooks_of_the_user_are_left_out(
    siglip: tuple[Path, Any], tmp_path: Path, names: Callable[[dict[str, Tensor]], dict[str, Tensor]]
) -> None:
    """PersonaPlex has a depformer for both voices."""
    theirs = write_moshi(tmp_path / "moshi", names, dep_q=16, depformer_context=16).state_dict()
    found = init_from_moshi(tmp_path / "out", str(tmp_path / "moshi"), str(siglip[0]))
    assert load_model(tmp_path / "out", "cpu", torch.float32).config.dep_q == 8
    ours = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(ours["audio_linears.7.weight"], theirs["linears.7.weight"])
    last = ours["depformer.layers.1.self_attn.in_proj_weight"].chunk(8)[7]
    assert torch.equal(last, theirs["depformer.layers.1.self_attn.in_projs.7.weight"])
    (left,) = [names for reason, names in found.left_out.items() if "user's voice" in reason]
    assert "linears.8.weight" in left and "depformer_emb.7.weight" in left and "linears.7.weight" not in left


def test_full_size_by_name_and_shape() -> None:
    """The released layout, nothing left over, from the released sizes of Moshi and of siglip-so400m-patch14-448."""
    vision = {"model_type": "siglip_vision_model", **VISION, "hidden_size": 1152, "intermediate_size": 4304}
    vision |= {"num_hidden_layers": 27, "num_attention_heads": 16, "image_size": 448}
    config = moshi_config(loaders._lm_kwargs, siglip_config({"vision_config": vision}))
    with torch.device("meta"):
        layout = MoshiVis(config).state_dict()
        released = MoshiVis(ModelConfig()).state_dict()
        moshi = loaders.get_moshi_lm(None, loaders._lm_kwargs, device="meta").state_dict()
        theirs = transformers.SiglipConfig(vision_config=vision, text_config={"num_hidden_layers": 1})
        siglip = transformers.SiglipModel(theirs).state_dict()
    assert {name: t.shape for name, t in layout.items()} == {name: t.shape for name, t in released.items()}
    shapes = [{name: tuple(t.shape) for name, t in state.items()} for state in (moshi, siglip)]
    found = plan(config, layout, *shapes)
    assert len(found.sources) == 893
    used = {name for source in found.sources.values() for name in source.names}
    assert used | {name for names in found.left_out.values() for name in names} == {*moshi, *siglip}
    new = sum(layout[name].numel() for name, source in found.sources.items() if source.file == "new")
    assert new == 206_184_448
    assert {reason.split()[1] for reason in found.left_out} == {"pooling", "text", "compares"}
    # Inside of PaliGemma, whose image encoder the paper took: by both of the names that transformers has had for it.
    bare = {
        name: shape
        for name, shape in shapes[1].items()
        if name.startswith("vision_model.") and ".head." not in name
    }
    for prefix in ("", "model."):
        larger = {f"{prefix}vision_tower.{name}": shape for name, shape in bare.items()}
        larger |= {
            f"{prefix}language_model.model.norm.weight": (2304,),
            f"{prefix}multi_modal_projector.linear.bias": (2304,),
        }
        assert plan(config, layout, shapes[0], larger).sources.keys() == layout.keys()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"demux_second_stream": True}, "demux_second_stream: true is no Moshi"),
        ({"model_type": "hibiki"}, 'model_type: "hibiki"'),
        ({"lora_name": "lora.safetensors"}, "lora_name"),
        ({"conditioners": {"cfg": {}}}, "conditioners"),
        ({"rotary_dims": 3}, "rotary_dims is unknown"),
    ],
)
def test_another_network_is_refused_by_name(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        moshi_config({**MOSHI, **change}, TINY.siglip)


def test_a_full_disk_and_a_quantised_file(
    base: tuple[Path, Any], siglip: tuple[Path, Any], tmp_path: Path
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match="free some space"):
            init_from_moshi(tmp_path / "out", str(base[0]), str(siglip[0]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    moshi = tmp_path / "moshi"
    shutil.copytree(base[0], moshi)
    state = load_file(moshi / "model.safetensors")
    state["linears.0.weight"] = state["linears.0.weight"].to(torch.int8)
    save_file(state, moshi / "model.safetensors")
    with pytest.raises(CheckpointError, match="linears.0.weight is of type I8: the original is needed"):
        init_from_moshi(tmp_path / "small", str(moshi), str(siglip[0]))
    assert not (tmp_path / "small").exists()


def test_files_that_do_not_fit_are_refused_by_name(
    base: tuple[Path, Any], siglip: tuple[Path, Any], tmp_path: Path
) -> None:
    state = load_file(base[0] / "model.safetensors")
    state["extra.weight"] = torch.zeros(1)
    del state["linears.3.weight"]
    state["text_emb.weight"] = torch.zeros(7, 64)
    moshi = tmp_path / "moshi"
    init_checkpoint(moshi)
    (moshi / "config.json").write_bytes((base[0] / "config.json").read_bytes())
    (moshi / "mimi.json").write_bytes((base[0] / "mimi.json").read_bytes())
    save_file(state, moshi / "model.safetensors")
    with pytest.raises(CheckpointError) as refused:
        init_from_moshi(tmp_path / "out", str(moshi), str(siglip[0]))
    for words in (
        "extra.weight [1] is unexpected",
        "audio_linears.3.weight",
        "text_emb.weight has the shape",
    ):
        assert words in str(refused.value)
    assert not (tmp_path / "out").exists(), "nothing is written before all is known to fit"
    with pytest.raises(ConfigError, match="not a SigLIP"):
        siglip_config({"vision_config": {"model_type": "clip_vision_model"}})
    assert main(["init", str(tmp_path / "out"), "--from-moshi", str(moshi)]) == 2
