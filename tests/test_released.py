"""The released quantised forms: MLX's q4 and q8 against MLX itself, ggml's q8_0 against its exact values, and which is taken."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from moshivis_ros import Conversation
from moshivis_ros.errors import CheckpointError, ConfigError, MissingDependencyError
from moshivis_ros.model import checkpoint, released
from moshivis_ros.model.checkpoint import load_model, resolve
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.model.image_encoder import preprocess
from moshivis_ros.model.lm import MoshiVis
from moshivis_ros.model.mlx_file import MlxFile
from moshivis_ros.model.packed import Packed, PackedEmbedding, PackedLinear
from moshivis_ros.model.sampling import GREEDY
from moshivis_ros.model.stream import Stream

MLX = Path(__file__).parent / "golden_mlx"
FORMS = ("q4", "q8")


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_mlx_says_the_same(form: str) -> None:
    """Tokens and logits of kyuteye_mlx's own classes on this file (see golden_mlx/README.md)."""
    golden = {name: torch.from_numpy(array) for name, array in np.load(MLX / form / "golden.npz").items()}
    model = load_model(MLX / form, "cpu", torch.float32)
    assert isinstance(model.llm.transformer.layers[1].gating.linear_out, PackedLinear)
    assert isinstance(model.depformer_emb[6], PackedEmbedding)
    pixels = preprocess(golden["picture"].numpy(), 56)
    torch.testing.assert_close(model.image_prefix.enc.model(pixels), golden["encoder"], atol=1e-4, rtol=0)
    image = model.image_kv(pixels)
    for found, name in zip(image, ("image_k", "image_v"), strict=True):
        torch.testing.assert_close(found, golden[name], atol=1e-4, rtol=0)
    stream = Stream(model)
    stream.set_image(image)
    # MLX hears every frame one step later than the original does.
    heard = torch.cat((golden["user_codes"][:1], golden["user_codes"][:-1])).long()
    for step, codes in enumerate(heard):
        hidden, logits, _ = stream.temporal(stream.write_user(codes[None]))
        torch.testing.assert_close(logits[0], golden["text_logits"][step], atol=5e-4, rtol=0)
        rows: list[Tensor] = []
        text = logits.argmax(-1)

        def choose(codebook: int, logits: Tensor, rows: list[Tensor] = rows) -> Tensor:
            rows.append(logits[0])
            return logits.argmax(-1)

        audio = stream.depformer(hidden, text, choose)
        stream.write_own(text, audio)
        said = slice(1 if step == 0 else 8)  # the rest of the first frame is thrown away by both
        assert int(text) == int(golden["text_token"][step])
        assert audio[0, said].tolist() == golden["audio_tokens"][step, said].tolist()
        torch.testing.assert_close(
            torch.stack(rows)[said], golden["audio_logits"][step, said], atol=5e-4, rtol=0
        )


@pytest.mark.parametrize("form", FORMS)
def test_the_replayed_step_is_the_plain_one(form: str) -> None:
    model = load_model(MLX / form, "cpu", torch.float32)
    plain, replayed = Stream(model), Stream(model)
    replayed.record()
    for stream in (plain, replayed):
        stream.set_sampling(GREEDY)
    for code in torch.randint(32, (10, 1, 8), generator=torch.Generator().manual_seed(0)):
        assert torch.equal(plain.step(code).tokens, replayed.step(code).tokens)


def test_mlx_weights_are_kept_as_they_are() -> None:
    """Levels of 4 bits by hand, from the words of the file; and nothing is larger than in the file."""
    stored = load_file(MLX / "q4" / "model.q4.safetensors")
    model = load_model(MLX / "q4", "cpu", torch.bfloat16)
    layer = model.llm.text_linear
    words = stored["text_linear.weight"].view(torch.int32).numpy().view(np.uint32)
    levels = np.stack([words >> 4 * i & 15 for i in range(8)], axis=-1).reshape(48, 8, 32)
    scales, biases = (
        stored[f"text_linear.{name}"].float().numpy()[..., None] for name in ("scales", "biases")
    )
    np.testing.assert_array_equal(
        layer.packed.weights(slice(None), 256).numpy(), (levels * scales + biases).reshape(48, 256)
    )
    used = sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])
    assert used < (MLX / "q4" / "model.q4.safetensors").stat().st_size


def test_what_mlx_repeats_must_be_the_same(tmp_path: Path) -> None:
    folder = shutil.copytree(MLX / "q4", tmp_path / "q4")
    file = folder / "model.q4.safetensors"
    tensors = load_file(file)
    tensors["transformer.layers.1.cross_attention.mha.out_proj.scales"] += 1
    tensors["depformer.slices.3.transformer.layers.1.norm2.weight"][2] = 7
    del tensors["audio_embs.3.scales"], tensors["text_linear.weight"]
    tensors["other"] = torch.zeros(2)
    tensors["out_norm.weight"] = torch.ones(4)
    save_file(tensors, file)
    with pytest.raises(CheckpointError) as error:
        load_model(folder, "cpu", torch.float32)
    for problem in (
        "layers.1.cross_attention.mha.out_proj.scales differs from transformer.layers.0",
        "slices.3.transformer.layers.1.norm2.weight differs from depformer.slices.0",
        "audio_embs.3.weight has the shape",
        "text_linear.weight [48, 256] is missing",
        "other is unexpected",
        "out_norm.weight has the shape [4], [1, 1, 256] is expected",
    ):
        assert problem in str(error.value)


def candle(state: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """The weights of an ordinary checkpoint under the names that kyuteye_rs reads."""
    dim, slices = config.dim, config.dep_q
    out = {f"{name}.weight": state[f"llm.{name}.weight"] for name in ("text_emb", "text_linear")}
    out["out_norm.alpha"] = state["llm.out_norm.alpha"]
    out |= {f"emb.{i}.weight": state[f"audio_emb.{i}.weight"] for i in range(config.n_q)}
    for i in range(config.num_layers):
        theirs, ours = f"transformer.layers.{i}.", f"llm.transformer.layers.{i}."
        for name in (
            *(f"{norm}.alpha" for norm in ("norm1", "norm2", "norm_cross")),
            "self_attn.in_proj_weight",
            "self_attn.out_proj.weight",
            "gating.linear_in.weight",
            "gating.linear_out.weight",
            "cross_attention.gate.alpha.0.weight",
            "cross_attention.gate.alpha.2.weight",
        ):
            out[theirs + name] = state[ours + name]
    ours, theirs = "llm.transformer.layers.0.cross_attention.mha.", "transformer.layers.0.cross_attention."
    out[theirs + "in_proj_weight_q"], out[theirs + "in_proj_weight_kv"] = state[
        ours + "in_proj_weight"
    ].split([dim, 2 * dim])
    out[theirs + "out_proj.weight"] = state[ours + "out_proj.weight"]
    for s in range(slices):
        out[f"depformer.{s}.linear_in.weight"] = state[f"depformer_in.{s}.weight"]
        out[f"depformer.{s}.linear_out.weight"] = state[f"audio_linears.{s}.weight"]
        table = f"depformer_emb.{s - 1}" if s else "depformer_text_emb"
        out[f"depformer.{s}.emb.weight"] = state[f"{table}.weight"]
        for i in range(config.depformer_num_layers):
            theirs, ours = f"depformer.{s}.transformer.layers.{i}.", f"depformer.layers.{i}."
            for name in ("in_proj_weight", "out_proj.weight"):
                out[f"{theirs}self_attn.{name}"] = state[f"{ours}self_attn.{name}"].chunk(slices)[s]
            for name in ("linear_in", "linear_out"):
                out[f"{theirs}gating.{name}.weight"] = state[f"{ours}gating.{s}.{name}.weight"]
            for name in ("norm1", "norm2"):
                out[f"{theirs}{name}.alpha"] = state[f"{ours}{name}.alpha"]
    return out


@pytest.fixture(scope="module")
def q8_0(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint as candle's tool writes it: rows of whole blocks in q8_0, the rest float32, GGUF version 2."""
    gguf = pytest.importorskip("gguf")
    folder = tmp_path_factory.mktemp("candle") / "q8"
    folder.mkdir()
    config = dataclasses.replace(
        ModelConfig.load(tiny), norm=released.NORM, norm_xa=released.NORM, model="model.q8_0.gguf"
    )
    config.save(folder)
    for name in (config.mimi_codec, config.text_tokenizer):
        shutil.copy(tiny / name, folder)
    state = load_file(tiny / "model.safetensors")
    vision = {name: tensor for name, tensor in state.items() if name.startswith("image_prefix.")}
    save_file(vision, folder / "model_vision_tower_unquant.safetensors")
    writer = gguf.GGUFWriter(folder / config.model, "moshi")
    for name, tensor in (candle(state, config) | vision).items():
        array = tensor.numpy()
        if tensor.dim() == 2 and tensor.shape[1] % 32 == 0:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with (folder / config.model).open("r+b") as file:
        file.seek(4)
        file.write((2).to_bytes(4, "little"))
    return folder


def dequantized(q8_0: Path, tiny: Path) -> MoshiVis:
    """The same in an ordinary model, with the values that the gguf library gives."""
    import gguf

    reader = gguf.GGUFReader(q8_0 / "model.q8_0.gguf", "c")
    values = {t.name: torch.from_numpy(gguf.quants.dequantize(t.data, t.tensor_type)) for t in reader.tensors}
    ordinary, config = load_file(tiny / "model.safetensors"), ModelConfig.load(q8_0)
    # Where a tensor came from is told by what candle() does with its name.
    names = {name: torch.full(tensor.shape, float(i)) for i, (name, tensor) in enumerate(ordinary.items())}
    for theirs, tensor in candle(names, config).items():
        whole, index = ordinary[list(ordinary)[int(tensor.flatten()[0])]], 0
        exact = candle(ordinary, config)[theirs]
        index = (exact.data_ptr() - whole.data_ptr()) // whole.element_size()
        whole.flatten()[index : index + exact.numel()] = values[theirs].flatten()
    with torch.device("meta"):
        model = MoshiVis(config)
    model.load_state_dict(ordinary, assign=True)
    return model.requires_grad_(False).eval()


@torch.no_grad()
def test_q8_0_is_computed_exactly(q8_0: Path, tiny: Path) -> None:
    packed, plain = load_model(q8_0, "cpu", torch.float32), dequantized(q8_0, tiny)
    assert isinstance(packed.llm.transformer.layers[0].cross_attention.mha.kv_proj, PackedLinear)
    assert isinstance(packed.llm.transformer.layers[0].cross_attention.gate.alpha[2], torch.nn.Linear)
    pixels = torch.rand(1, 3, 56, 56) * 2 - 1
    streams = []
    for model in (packed, plain):
        streams.append(Stream(model))
        streams[-1].set_image(model.image_kv(pixels))
    for codes in torch.randint(packed.config.audio_card, (20, 1, 8)):
        found = []
        for stream in streams:
            hidden, logits, _ = stream.temporal(stream.write_user(codes))
            audio = stream.depformer(hidden, logits.argmax(-1), lambda _, logits: logits.argmax(-1))
            stream.write_own(logits.argmax(-1), audio)
            found.append((logits, audio))
        torch.testing.assert_close(found[0][0], found[1][0], atol=1e-3, rtol=1e-4)
        assert torch.equal(found[0][1], found[1][1])


def test_a_conversation_with_q8_0(q8_0: Path) -> None:
    for name in (q8_0, q8_0 / "model.q8_0.gguf"):
        with Conversation.load(name, device="cpu", sampling=GREEDY) as conversation:
            frames = [conversation.step(np.zeros(1920, np.float32)) for _ in range(4)]
        assert np.abs(frames[-1].pcm).max() > 0


def test_what_is_wrong_with_a_gguf_file(q8_0: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="model.q8_0.gguf is quantised already"):
        load_model(q8_0, "cpu", torch.float32, "int4")
    folder = shutil.copytree(q8_0, tmp_path / "broken")
    (folder / "model_vision_tower_unquant.safetensors").unlink()
    with pytest.raises(CheckpointError, match="there is no model_vision_tower_unquant.safetensors"):
        load_model(folder, "cpu", torch.float32)
    file = folder / "model.q8_0.gguf"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="cut short, damaged or not a GGUF file"):
        load_model(folder, "cpu", torch.float32)
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingDependencyError, match="pip install gguf"):
        load_model(q8_0, "cpu", torch.float32)


MEASURE = """
import sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from memory import peak_of
from moshivis_ros.model.checkpoint import load_model

load_model(Path(sys.argv[1]), "cpu", torch.bfloat16)  # what torch itself loads on first use is not the model's
print(peak_of(lambda: load_model(Path(sys.argv[2]), "cpu", torch.bfloat16))[0])
"""


class Everything(set[str]):
    def __contains__(self, name: object) -> bool:
        return True


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_memory_holds_the_model_and_one_tensor(tmp_path: Path) -> None:
    config = dataclasses.replace(
        ModelConfig.preset("tiny"), dim=1024, num_heads=8, num_layers=8, model="model.q4.safetensors"
    )
    config.save(tmp_path)
    with torch.device("meta"):
        model = MoshiVis(config)
    names, tensors = MlxFile.__new__(MlxFile), {}
    names.names = Everything()
    for name, expected in model.named_parameters():
        module, _, parameter = name.rpartition(".")
        parts = names.parts(module, parameter)
        columns = expected.shape[-1]
        if expected.dim() == 2 and columns % 32 == 0 and ".enc." not in name:
            tensors[parts[0]] = torch.ones(len(expected), columns // 8, dtype=torch.int32).view(torch.uint32)
            for part in parts[1:]:
                tensors[part] = torch.ones(len(expected), columns // 32, dtype=torch.bfloat16)
        else:
            tensors[parts[0]] = torch.ones(expected.shape, dtype=torch.bfloat16)
    save_file(tensors, tmp_path / config.model)
    largest = max(t.numel() * t.element_size() for t in tensors.values())
    command = [sys.executable, "-c", MEASURE, MLX / "q4", tmp_path, Path(__file__).parent]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    size = (tmp_path / config.model).stat().st_size
    assert size > 8 * largest
    # unpacking levels of 4 bits takes some copies of one tensor
    assert 0.9 * size < int(done.stdout) < 1.05 * size + 5 * largest


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_many_vectors_and_many_rows(bits: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than are unpacked at a time, and more than are multiplied in float32."""
    monkeypatch.setattr("moshivis_ros.model.packed.BLOCK", 7 * 64)
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(256, (20, 64 * bits // 8), generator=generator, dtype=torch.uint8)
    packed = Packed(levels, torch.rand(20, 2, generator=generator).half(), torch.rand(20, 2).half())
    layer = PackedLinear(packed, 64, torch.rand(20).to(dtype))
    weight = packed.weights(slice(None), 64)
    for batch in (1, 3, 40):
        x = torch.randn(batch, 64, generator=generator).to(dtype)
        expected = torch.nn.functional.linear(x.float(), weight, layer.bias.float())
        tolerance = 1e-4 if dtype == torch.float32 else 0.02
        torch.testing.assert_close(
            layer(x).float(), expected, rtol=tolerance, atol=tolerance * float(expected.abs().max())
        )
        assert layer(x).dtype == dtype


# --- which file is taken


@pytest.mark.parametrize(
    "free, kv_cache, file",
    [
        (15e9, None, "model.q8.safetensors"),
        (10.5e9, None, "model.q4.safetensors"),
        (13.5e9, "int8", "model.q8.safetensors"),
        (1e9, None, "model.q4.safetensors"),
    ],
)
def test_the_best_that_fits_is_downloaded(
    free: float, kv_cache: str | None, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def download(repo: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        for name in allow_patterns[1:]:
            (tmp_path / name).touch()
        return str(tmp_path)

    monkeypatch.setattr(checkpoint, "snapshot_download", download)
    monkeypatch.setattr(released, "free_memory", lambda device: int(free))
    assert resolve("kyutai/moshika-vis-mlx", kv_cache=kv_cache) == tmp_path / file
    assert len(asked) == 1 and set(asked[0]) & set(released.FILES) == {file}
    assert resolve("me/mine/model.q8_0.gguf") == tmp_path / "model.q8_0.gguf"
    assert "model_vision_tower_unquant.safetensors" in asked[1]


def test_a_folder_with_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("model.q4.safetensors", "model.q8.safetensors"):
        (tmp_path / name).touch()
    for free, file in ((60_000_000_000, "model.q8.safetensors"), (10_000_000_000, "model.q4.safetensors")):
        monkeypatch.setattr(released, "free_memory", lambda device, free=free: free)
        assert resolve(tmp_path) == tmp_path / file
    assert resolve(tmp_path / "model.q4.safetensors").name == "model.q4.safetensors"
