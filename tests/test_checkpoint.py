"""Finding and loading checkpoints: the released layout, every way in which a file can be wrong, memory."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import pickle
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from huggingface_hub.utils import reset_sessions
from safetensors.torch import load_file, save_file
from torch import Tensor

import moshivis_ros.model.checkpoint as checkpoint
import moshivis_ros.model.config as config_module
from moshivis_ros.errors import CheckpointError
from moshivis_ros.model.codec import Codec
from moshivis_ros.model.config import ModelConfig, SiglipConfig
from moshivis_ros.model.cost import WORKING
from moshivis_ros.model.init import init_checkpoint
from moshivis_ros.model.lm import MoshiVis
from moshivis_ros.model.tokenizer import Tokenizer
from moshivis_ros.model.weights import load_into

MODEL = "model.safetensors"

# The released file. L: layers 0..31, l: depformer layers 0..5, s: codebooks 0..7, v: SigLIP layers 0..26.
RELEASED = {
    "llm.text_emb.weight": [32001, 4096],
    "llm.text_linear.weight": [32000, 4096],
    "llm.out_norm.alpha": [1, 1, 4096],
    "llm.transformer.layers.{L}.norm1.alpha": [1, 1, 4096],
    "llm.transformer.layers.{L}.norm2.alpha": [1, 1, 4096],
    "llm.transformer.layers.{L}.norm_cross.alpha": [1, 1, 4096],
    "llm.transformer.layers.{L}.self_attn.in_proj_weight": [12288, 4096],
    "llm.transformer.layers.{L}.self_attn.out_proj.weight": [4096, 4096],
    "llm.transformer.layers.{L}.gating.linear_in.weight": [22528, 4096],
    "llm.transformer.layers.{L}.gating.linear_out.weight": [4096, 11264],
    "llm.transformer.layers.0.cross_attention.mha.in_proj_weight": [12288, 4096],
    "llm.transformer.layers.0.cross_attention.mha.out_proj.weight": [4096, 4096],
    "llm.transformer.layers.{L}.cross_attention.gate.alpha.0.weight": [512, 4096],
    "llm.transformer.layers.{L}.cross_attention.gate.alpha.2.weight": [4096, 512],
    "audio_emb.{16}.weight": [2049, 4096],
    "depformer_in.{s}.weight": [1024, 4096],
    "depformer_emb.{7}.weight": [2049, 1024],
    "depformer_text_emb.weight": [32001, 1024],
    "depformer.layers.{l}.self_attn.in_proj_weight": [24576, 1024],
    "depformer.layers.{l}.self_attn.out_proj.weight": [8192, 1024],
    "depformer.layers.{l}.norm1.alpha": [1, 1, 1024],
    "depformer.layers.{l}.norm2.alpha": [1, 1, 1024],
    "depformer.layers.{l}.gating.{s}.linear_in.weight": [5632, 1024],
    "depformer.layers.{l}.gating.{s}.linear_out.weight": [1024, 2816],
    "audio_linears.{s}.weight": [2048, 1024],
    "image_prefix.enc.model.embeddings.patch_embedding.weight": [1152, 3, 14, 14],
    "image_prefix.enc.model.embeddings.patch_embedding.bias": [1152],
    "image_prefix.enc.model.embeddings.position_embedding.weight": [1024, 1152],
    "image_prefix.enc.model.encoder.layers.{v}.layer_norm1.weight": [1152],
    "image_prefix.enc.model.encoder.layers.{v}.layer_norm1.bias": [1152],
    "image_prefix.enc.model.encoder.layers.{v}.layer_norm2.weight": [1152],
    "image_prefix.enc.model.encoder.layers.{v}.layer_norm2.bias": [1152],
    "image_prefix.enc.model.encoder.layers.{v}.self_attn.{qkvo}_proj.weight": [1152, 1152],
    "image_prefix.enc.model.encoder.layers.{v}.self_attn.{qkvo}_proj.bias": [1152],
    "image_prefix.enc.model.encoder.layers.{v}.mlp.fc1.weight": [4304, 1152],
    "image_prefix.enc.model.encoder.layers.{v}.mlp.fc1.bias": [4304],
    "image_prefix.enc.model.encoder.layers.{v}.mlp.fc2.weight": [1152, 4304],
    "image_prefix.enc.model.encoder.layers.{v}.mlp.fc2.bias": [1152],
    "image_prefix.enc.model.post_layernorm.weight": [1152],
    "image_prefix.enc.model.post_layernorm.bias": [1152],
    "image_prefix.proj_xa.weight": [4096, 1152],
    "image_prefix.proj_xa.bias": [4096],
    "image_prefix.norm_xa.alpha": [1, 1, 4096],
}
RANGES = {"L": range(32), "l": range(6), "s": range(8), "v": range(27), "16": range(16), "7": range(7)}


def released_table() -> dict[str, list[int]]:
    """RELEASED with every {index} written out."""
    table = dict(RELEASED)
    while indexed := [name for name in table if "{" in name]:
        for name in indexed:
            index = re.search(r"{(\w+)}", name)[1]
            values = ("q", "k", "v", "out") if index == "qkvo" else RANGES[index]
            shape = table.pop(name)
            table.update({name.replace(f"{{{index}}}", str(value)): shape for value in values})
    return table


# The released network with every count as it is and every width small.
SMALL_RELEASED = ModelConfig(
    dim=32,
    num_heads=4,
    context=16,
    text_card=384,
    audio_card=64,
    depformer_dim=16,
    depformer_dim_feedforward=66,
    depformer_num_heads=2,
    siglip=SiglipConfig(hidden_size=16, intermediate_size=24, num_attention_heads=2, image_size=28),
    image_size=28,
    mimi=ModelConfig.preset("tiny").mimi,
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return init_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    """A copy of a small checkpoint, to be damaged."""
    return Path(shutil.copytree(tiny, tmp_path / "tiny"))


def load(folder: Path, dtype: torch.dtype = torch.float32) -> MoshiVis:
    return checkpoint.load_model(folder, "cpu", dtype)


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        load(folder)
    return str(error.value)


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(folder / MODEL)
    change(tensors)
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, folder / MODEL)


# --- the released layout


def test_full_size_network_is_exactly_the_released_file() -> None:
    with torch.device("meta"):
        model = MoshiVis(ModelConfig.preset("moshika-vis"))
    state = model.state_dict()
    assert {name: list(t.shape) for name, t in state.items()} == released_table()
    assert len(state) == 893
    assert sum(t.numel() for t in state.values()) == 8_307_240_688


@pytest.mark.parametrize("has_config", [True, False])
def test_released_layout_loads_as_it_is(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_config: bool
) -> None:
    """893 tensors under the released names and files, in bfloat16, with and without a config.yaml."""
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        shapes = {name: t.shape for name, t in MoshiVis(SMALL_RELEASED).state_dict().items()}
    written = {name: torch.randn(shapes[name], generator=generator).bfloat16() for name in released_table()}
    save_file(written, tmp_path / MODEL)
    for name in ("tokenizer-e351c8d8-checkpoint125.safetensors", "tokenizer_spm_32k_3.model"):
        shutil.copy(tiny / name, tmp_path)
    if has_config:
        SMALL_RELEASED.save(tmp_path)
    else:
        monkeypatch.setitem(config_module.PRESETS, "moshika-vis", SMALL_RELEASED)
    model = load(tmp_path, torch.bfloat16)
    assert model.config == SMALL_RELEASED
    loaded = model.state_dict()
    assert loaded.keys() == written.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in written.items())
    Codec.load(tmp_path, model.config, "cpu")
    Tokenizer.load(tmp_path, model.config)


def test_saved_and_loaded_again(tiny: Path, tmp_path: Path) -> None:
    model = load(tiny)
    checkpoint.save_model(model, tmp_path / "deep" / "copy")
    again = load(tmp_path / "deep" / "copy")
    assert again.config == model.config
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("wanted", [torch.float32, torch.bfloat16])
def test_converts_to_the_wanted_type(folder: Path, stored: torch.dtype, wanted: torch.dtype) -> None:
    rewrite(folder, lambda tensors: tensors.update({k: t.to(stored) for k, t in tensors.items()}))
    model = load(folder, wanted)
    assert not model.training
    for name, tensor in load_file(folder / MODEL).items():
        parameter = model.state_dict()[name]
        assert parameter.dtype == wanted and not parameter.requires_grad
        assert torch.equal(parameter, tensor.to(wanted)), name


def test_the_file_may_change_after_loading(folder: Path) -> None:
    model = load(folder)
    before = model.llm.text_linear.weight.clone()
    with (folder / MODEL).open("r+b") as file:
        file.write(bytes((folder / MODEL).stat().st_size))
    assert torch.equal(model.llm.text_linear.weight, before)


# --- files that are wrong


def test_missing_unexpected_and_wrongly_shaped_tensors_are_listed(folder: Path) -> None:
    def change(tensors: dict[str, Tensor]) -> None:
        del tensors["llm.out_norm.alpha"]
        tensors["llm.surprise"] = torch.ones(2, 3)
        tensors["audio_emb.3.weight"] = torch.ones(7, 64)
        tensors["depformer_in.1.weight"] = torch.ones(32, 64, dtype=torch.int8)

    rewrite(folder, change)
    message = refusal(folder)
    for part in (
        "llm.out_norm.alpha [1, 1, 64] is missing",
        "llm.surprise [2, 3] is unexpected",
        "audio_emb.3.weight has the shape [7, 64], [65, 64] is expected",
        "depformer_in.1.weight is of type I8, a floating-point type is expected",
    ):
        assert part in message
    assert "config.yaml" not in message and "more" not in message


def test_a_long_list_is_cut_and_a_missing_config_is_pointed_out(folder: Path) -> None:
    (folder / "config.yaml").unlink()
    message = refusal(folder)
    assert len(message.splitlines()) == 13 and re.search(r"\.\.\. and \d{3} more", message)
    assert f"{folder} has no config.yaml, so this must be the released model" in message


def test_shared_cross_attention_may_be_repeated_but_not_differ(folder: Path) -> None:
    def repeat(tensors: dict[str, Tensor]) -> None:
        for layer in (1, 2):
            for part in ("in_proj_weight", "out_proj.weight"):
                name = "llm.transformer.layers.{}.cross_attention.mha." + part
                tensors[name.format(layer)] = tensors[name.format(0)]

    rewrite(folder, repeat)
    load(folder)
    name = "llm.transformer.layers.2.cross_attention.mha.in_proj_weight"
    rewrite(folder, lambda tensors: tensors.update({name: tensors[name] + 1}))
    assert f"{name} differs from llm.transformer.layers.0.cross_attention" in refusal(folder)


@pytest.mark.parametrize("size", [0, 5, 1000, -1])
def test_truncated_file(folder: Path, size: int) -> None:
    with (folder / MODEL).open("r+b") as file:
        file.truncate(size if size >= 0 else (folder / MODEL).stat().st_size + size)
    assert re.search(r"model\.safetensors \(\d+ bytes\) is cut short, .*download it again", refusal(folder))


def test_not_a_safetensors_file(folder: Path) -> None:
    (folder / MODEL).write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 16614481376\n"
    )
    assert "not a safetensors file" in refusal(folder) and "git-lfs" in refusal(folder)


class Trap:
    """Unpickling one raises."""

    def __reduce__(self) -> tuple[object, ...]:
        return exec, ("raise SystemExit('unpickled')",)


@pytest.mark.parametrize("name", ["model.pt", "pytorch_model.bin", "model.pth", "last.ckpt"])
def test_pickles_are_refused_unread(folder: Path, name: str) -> None:
    (folder / MODEL).unlink()
    (folder / name).write_bytes(pickle.dumps(Trap()))
    assert re.search(
        rf"no model.safetensors in .*There is {name}, but pickle files are never read", refusal(folder)
    )
    dataclasses.replace(ModelConfig.load(folder), model=name).save(folder)
    assert f"{name}: pickle files can run code" in refusal(folder)


def test_a_pickle_under_the_right_name_is_refused_unread(folder: Path) -> None:
    (folder / MODEL).write_bytes(pickle.dumps(Trap()) * 100)
    assert "not a safetensors file" in refusal(folder)


def test_missing_file(folder: Path) -> None:
    (folder / MODEL).unlink()
    assert refusal(folder) == f"there is no model.safetensors in {folder}: download the checkpoint again."


def test_a_buffer_without_values_is_a_mistake_of_ours(tmp_path: Path) -> None:
    class Table(torch.nn.Linear):
        def __init__(self) -> None:
            super().__init__(2, 2)
            self.register_buffer("table", torch.ones(2), persistent=False)

    save_file(torch.nn.Linear(2, 2).state_dict(), tmp_path / MODEL)
    with torch.device("meta"):
        module = Table()
    with pytest.raises(RuntimeError, match="table"):
        load_into(module, tmp_path / MODEL, module.state_dict(), "cpu", torch.float32)


def test_a_checkpoint_that_does_not_fit_the_gpu(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is counted: weights, window, the picture's keys and values, Mimi, what libraries and recordings take."""
    config = ModelConfig.load(tiny)
    weights = sum(tensor.numel() for tensor in load_file(tiny / MODEL).values())
    window = 2 * config.num_layers * config.context * config.dim
    picture = 2 * config.image_tokens() * config.dim
    needed = 4 * (weights + window + picture) + (tiny / config.mimi_codec).stat().st_size + WORKING
    integrated = 0

    def free(amount: int) -> None:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (amount, 8_000_000_000))

    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(is_integrated=integrated)
    )
    free(needed - 1)
    with pytest.raises(
        CheckpointError, match=r"needs 0.5 GB on cuda:0 .* 0.5 of 8.0 GB are free: .*device='cpu'"
    ):
        checkpoint.load_model(tiny, "cuda:0", torch.float32)
    small = needed - 2 * config.num_layers * config.context * (3 * config.dim - 4 * config.num_heads)
    free(small - 1)
    with pytest.raises(CheckpointError, match="are free"):
        checkpoint.load_model(tiny, "cuda:0", torch.float32, kv_cache="int8")
    if not torch.cuda.is_available():
        free(small)
        with pytest.raises((AssertionError, RuntimeError), match="(?i)cuda|nvidia"):
            checkpoint.load_model(tiny, "cuda:0", torch.float32, kv_cache="int8")
        # A Jetson's GPU has the computer's memory, of which CUDA calls free only what holds no copies of files.
        free(0)
        integrated = 1
        with pytest.raises((AssertionError, RuntimeError), match="(?i)cuda|nvidia"):
            checkpoint.load_model(tiny, "cuda:0", torch.float32)
        return
    free(needed)
    checkpoint.load_model(tiny, "cuda:0", torch.float32)


MEASURE = """
import sys, torch
sys.path.insert(0, sys.argv[4])
from memory import peak_of
from moshivis_ros.model.checkpoint import load_model

load_model(sys.argv[3], "cpu", torch.float32)  # what torch itself loads on first use is not the model's
peak, model = peak_of(lambda: load_model(sys.argv[1], "cpu", getattr(torch, sys.argv[2])))
sizes = [p.numel() * p.element_size() for p in model.parameters()]
print(peak, sum(sizes), max(sizes))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_loading_takes_no_more_memory_than_the_model(tiny: Path, tmp_path: Path, stored: torch.dtype) -> None:
    config = dataclasses.replace(ModelConfig.preset("tiny"), dim=512, num_heads=8, num_layers=14)
    with torch.device("meta"):
        model = MoshiVis(config)
    config.save(tmp_path)
    save_file({k: torch.ones(t.shape, dtype=stored) for k, t in model.state_dict().items()}, tmp_path / MODEL)
    del model
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path, "float32", tiny, Path(__file__).parent],
        capture_output=True,
        text=True,
        check=True,
    )
    peak, size, largest = map(int, done.stdout.split())
    assert size > 150e6
    assert 0.9 * size < peak <= 1.1 * size + largest


# --- finding a checkpoint


def test_a_folder_is_returned_as_it_is(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tiny.parent))
    assert checkpoint.resolve(tiny) == checkpoint.resolve(str(tiny)) == checkpoint.resolve("~/tiny") == tiny
    with pytest.raises(CheckpointError, match="revision 'main' is for Hugging Face repos only"):
        checkpoint.resolve(tiny, revision="main")
    assert checkpoint.resolve(tiny / MODEL) == tiny / MODEL
    with pytest.raises(CheckpointError, match="is no file of weights: give the folder"):
        checkpoint.resolve(tiny / "config.yaml")


@pytest.mark.parametrize(
    "name", ["/no/such/folder", "./models/tiny", "~/models", "models", "a/b/c", Path("models/tiny")]
)
def test_what_looks_like_a_folder_is_not_asked_of_the_hub(
    name: str | Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(checkpoint, "snapshot_download", lambda *a, **k: pytest.fail("the hub was asked"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=f"there is no folder {Path(name).expanduser()}: give"):
        checkpoint.resolve(name)


class Hub:
    """A Hugging Face hub on this machine: what it holds is ``files[owner/name][revision][file]``."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, dict[str, bytes]]] = {}
        self.refuse: tuple[tuple[int, str] | None, tuple[int, str] | None] = (None, None)  # listing, files
        self.fetched: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(body=False)

            def do_GET(self) -> None:
                self.answer(body=True)

            def answer(self, body: bool) -> None:
                listing = re.fullmatch(r"/api/models/(owner/\w+)/revision/(\w+)", self.path)
                repo, revision = (listing or re.match(r"/(owner/\w+)/resolve/(\w+)/", self.path)).groups()
                refuse_listing, refuse_files = hub.refuse
                if refused := refuse_listing if listing else refuse_files:
                    return self.reply(*refused)
                if repo not in hub.files:
                    return self.reply(404, "RepoNotFound")
                commits = {name.ljust(40, "0"): files for name, files in hub.files[repo].items()}
                commit = revision.ljust(40, "0")
                if commit not in commits:
                    return self.reply(404, "RevisionNotFound")
                if listing:
                    names = [{"rfilename": name} for name in commits[commit]]
                    data = json.dumps({"id": repo, "sha": commit, "siblings": names}).encode()
                else:
                    file = self.path.rpartition("/")[2]
                    data = commits[commit][file]
                    if body:
                        hub.fetched.append(file)
                self.reply(200, "", commit, data, body)

            def reply(
                self, status: int, code: str, commit: str = "", data: bytes = b"", body: bool = False
            ) -> None:
                self.send_response(status)
                self.send_header("X-Error-Code", code)
                self.send_header("X-Repo-Commit", commit)
                self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if body:
                    self.wfile.write(data)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub()
    download = partial(huggingface_hub.snapshot_download, endpoint=hub.url, cache_dir=tmp_path / "cache")
    monkeypatch.setattr(checkpoint, "snapshot_download", download)
    reset_sessions()  # one that was made offline stays so
    yield hub
    hub.close()
    reset_sessions()


def publish(hub: Hub, tiny: Path, revision: str = "main", **more: bytes) -> None:
    files = {file.name: file.read_bytes() for file in tiny.iterdir()}
    hub.files.setdefault("owner/tiny", {})[revision] = {**files, **more}


def test_a_repo_is_downloaded_once_and_only_what_is_needed(hub: Hub, tiny: Path) -> None:
    publish(hub, tiny, **{"README.md": b"#", "model.q8.safetensors": b"", "pytorch_model.bin": b""})
    folder = checkpoint.resolve("owner/tiny")
    assert sorted(hub.fetched) == sorted(file.name for file in tiny.iterdir())
    assert load(folder).config == load(tiny).config
    assert checkpoint.resolve("owner/tiny") == folder
    assert len(hub.fetched) == 4, "downloaded twice"


def test_a_repo_without_config_is_the_released_layout(hub: Hub, tiny: Path) -> None:
    publish(hub, tiny)
    del hub.files["owner/tiny"]["main"]["config.yaml"]
    assert len(list(checkpoint.resolve("owner/tiny").iterdir())) == 3


def test_file_names_of_the_repos_own_config_are_used(hub: Hub, tiny: Path) -> None:
    publish(hub, tiny)
    files = hub.files["owner/tiny"]["main"]
    files["weights.safetensors"] = files.pop(MODEL)
    files["config.yaml"] = files["config.yaml"].replace(
        b"model: model.safetensors", b"model: weights.safetensors"
    )
    load(checkpoint.resolve("owner/tiny"))


def test_the_revision_is_pinned(hub: Hub, tiny: Path, tmp_path: Path) -> None:
    publish(hub, tiny)
    publish(hub, init_checkpoint(tmp_path / "other", seed=1), revision="v2")
    first, second = checkpoint.resolve("owner/tiny"), checkpoint.resolve("owner/tiny", revision="v2")
    assert (first / MODEL).read_bytes() == (tiny / MODEL).read_bytes() != (second / MODEL).read_bytes()


def test_the_cache_serves_without_a_network(hub: Hub, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(hub, tiny)
    folder = checkpoint.resolve("owner/tiny")
    hub.close()
    assert checkpoint.resolve("owner/tiny") == folder
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert checkpoint.resolve("owner/tiny") == folder
    with pytest.raises(CheckpointError, match="owner/other is not in the cache: unset HF_HUB_OFFLINE"):
        checkpoint.resolve("owner/other")


@pytest.mark.parametrize(
    ("listing", "files", "complaint"),
    [
        (
            (404, "RepoNotFound"),
            None,
            "no folder owner/tiny, and no Hugging Face repo 'owner/tiny' either: .*hf auth login",
        ),
        ((404, "RevisionNotFound"), None, "owner/tiny has no revision 'main'"),
        ((403, "GatedRepo"), None, "owner/tiny is gated: accept its terms"),
        (None, (403, "GatedRepo"), "owner/tiny is gated: accept its terms"),
        (
            (503, "Down"),
            None,
            "owner/tiny cannot be downloaded and is not in the cache .503 .*check the network",
        ),
    ],
)
def test_what_the_hub_refuses(
    hub: Hub,
    tiny: Path,
    listing: tuple[int, str] | None,
    files: tuple[int, str] | None,
    complaint: str,
) -> None:
    publish(hub, tiny)
    hub.refuse = listing, files
    with pytest.raises(CheckpointError, match=f"(?s){complaint}"):
        checkpoint.resolve("owner/tiny", revision="main")


def test_a_repo_that_is_no_checkpoint(hub: Hub, tiny: Path) -> None:
    publish(hub, tiny)
    del hub.files["owner/tiny"]["main"]["tokenizer_spm_32k_3.model"]
    with pytest.raises(CheckpointError, match="owner/tiny lacks tokenizer_spm_32k_3.model"):
        checkpoint.resolve("owner/tiny")


def test_no_network_and_nothing_in_the_cache(hub: Hub) -> None:
    hub.close()
    with pytest.raises(CheckpointError, match="(?s)owner/tiny cannot be downloaded .*check the network"):
        checkpoint.resolve("owner/tiny")


def test_a_name_that_the_hub_does_not_allow(hub: Hub) -> None:
    with pytest.raises(CheckpointError, match="it is no Hugging Face repo id"):
        checkpoint.resolve("owner/tiny--model")


def test_no_space_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "snapshot_download", full)
    with pytest.raises(CheckpointError, match="has no space left for owner/tiny: free some, or set HF_HOME"):
        checkpoint.resolve("owner/tiny")
