"""Models of strangers: nothing of theirs runs, nothing that they name is fetched or read, and no size of theirs is believed."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch

import edgecomp
from edgecomp.checkpoint_file import sealed
from edgecomp.errors import ConfigError, EdgecompError, ModelError
from edgecomp.models import load_model
from edgecomp.trust import Trust

RECIPE: dict[str, Any] = {"version": 1, "passes": [{"method": "lut-kmeans", "bits": 8, "refits": 0, "weighting": "none"}]}
# Python files of a model's makers: that they ran is told by a file.
CODE = """
from pathlib import Path
from transformers import {base} as Base, {base_config} as BaseConfig, PreTrainedTokenizerFast
Path({ran!r}).touch()
class TheirConfig(BaseConfig):
    model_type = "theirs"
class TheirModel(Base):
    config_class = TheirConfig
class TheirTokenizer(PreTrainedTokenizerFast):
    pass
"""

Edit = Callable[[Path], object]


def edit_json(name: str, **entries: Any) -> Edit:
    """Set entries of a JSON file; `...` removes one."""

    def edit(folder: Path) -> None:
        path = folder / name
        value = (json.loads(path.read_text()) if path.exists() else {}) | entries
        path.write_text(json.dumps({key: entry for key, entry in value.items() if entry is not ...}))

    return edit


def config(**entries: Any) -> Edit:
    return edit_json("config.json", **entries)


def tokenizer(**entries: Any) -> Edit:
    return edit_json("tokenizer_config.json", **entries)


def both(*edits: Edit) -> Edit:
    def edit(folder: Path) -> None:
        for one in edits:
            one(folder)

    return edit


def code_of_theirs(folder: Path, ran: Path) -> None:
    """The model becomes one of a type of its own, whose code lies beside it."""
    (folder / "theirs.py").write_text(CODE.format(base="LlamaForCausalLM", base_config="LlamaConfig", ran=str(ran)))
    config(
        model_type="theirs",
        architectures=["TheirModelForCausalLM"],
        auto_map={"AutoConfig": "theirs.TheirConfig", "AutoModelForCausalLM": "theirs.TheirModel"},
    )(folder)


@pytest.fixture
def llama(llama_folder: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(llama_folder, tmp_path / "llama"))


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: Any) -> Path:
    """Where transformers copies others' code to."""
    from transformers import dynamic_module_utils

    folder = tmp_path / "modules"
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(folder))
    monkeypatch.setattr(sys, "path", list(sys.path))
    return folder


def test_code_beside_a_model_does_not_run_and_nobody_is_asked(llama: Path, tmp_path: Path, monkeypatch: Any) -> None:
    ran = tmp_path / "ran"
    code_of_theirs(llama, ran)
    monkeypatch.setattr("builtins.input", lambda _: "y")
    with pytest.raises(ModelError, match="--trust-remote-code"):
        load_model(str(llama))
    assert not ran.exists()


def test_code_beside_a_model_runs_for_those_who_want_it(llama: Path, tmp_path: Path) -> None:
    ran, expected = tmp_path / "ran", load_model(str(llama))
    code_of_theirs(llama, ran)
    trusted = Trust(remote_code=True)
    packed = edgecomp.compress(
        str(llama), RECIPE, str(tiny_models.save_text(tmp_path / "t.txt")), samples=2, sequence_length=8, trust=trusted
    )
    assert ran.exists()
    sample = expected.samples(str(tmp_path / "t.txt"), count=1, sequence_length=8)[0]
    torch.testing.assert_close(packed(sample)[0], expected(sample)[0], atol=0.05, rtol=0.05)
    packed.save(tmp_path / "m.ec")
    with pytest.raises(ModelError, match="--trust-remote-code"):
        edgecomp.load(tmp_path / "m.ec")
    assert torch.equal(edgecomp.load(tmp_path / "m.ec", trust=trusted)(sample)[0], packed(sample)[0])


def test_a_known_type_is_built_by_transformers_whatever_code_lies_beside(llama: Path, tmp_path: Path, monkeypatch: Any) -> None:
    ran = tmp_path / "ran"
    code_of_theirs(llama, ran)
    config(model_type="llama", architectures=["LlamaForCausalLM"])(llama)
    tokenizer(auto_map={"AutoTokenizer": [None, "theirs.TheirTokenizer"]})(llama)
    monkeypatch.setattr("builtins.input", lambda _: "y")
    assert load_model(str(llama)).source["architecture"] == "LlamaForCausalLM"
    assert not ran.exists()


NAMES: dict[str, tuple[Edit, str]] = {
    "a kernel as attention": (config(attn_implementation="strangers/attention:run"), r"one of eager, sdpa, got 'strangers"),
    "the same under its inner name": (config(_attn_implementation_internal="strangers/attention"), "one of eager, sdpa"),
    "a kernel of a part": (
        config(text_config={"_attn_implementation": "strangers/attention"}),
        r"text_config\._attn_implementation",
    ),
    "a kernel by parts": (config(attn_implementation={"": "sdpa", "text_config": "flash_attention_2"}), "got 'flash_attention_2'"),
    "kernels for experts": (config(experts_implementation="sonicmoe"), "one of eager, batched_mm, grouped_mm"),
    "a quantisation method": (
        config(quantization_config={"quant_method": "torchao", "quant_type": "int4_weight_only"}),
        "as they were",
    ),
    "a quantisation method of a part": (
        config(text_config={"quantization_config": {"quant_method": "mxfp4"}}),
        "text_config.quanti",
    ),
    "an index of pickles": (
        config(model_type="rag", architectures=["RagModel"]),
        "must be of a type that transformers has for text",
    ),
    "a backbone": (config(model_type="detr", architectures=["DetrModel"], backbone="strangers/x"), "of a type that transformers"),
    "weights in another folder": (config(transformers_weights="../other.safetensors"), "of its own folder as its weights"),
    "weights that are pickled": (config(transformers_weights="weights.bin"), "of its own folder as its weights"),
    "another configuration": (config(configuration_files=["config.4.0.0.json"]), "configuration_files"),
    "a retriever as tokenizer": (tokenizer(tokenizer_class="RagRetriever"), "must name a tokenizer"),
    "a tokenizer that opens what it is told": (tokenizer(tokenizer_class="BertJapaneseTokenizer"), "must name a tokenizer"),
    "no name of a tokenizer": (tokenizer(tokenizer_class={"a": 1}), "must name a tokenizer"),
    "a tokenizer by the configuration": (
        both(config(tokenizer_class="Trainer"), tokenizer(tokenizer_class=...)),
        "must name a tok",
    ),
    "words of another file": (tokenizer(vocab_file="/etc/passwd"), "vocab_file is '/etc/passwd'"),
    "words of another folder": (tokenizer(tokenizer_file="../../secret.json"), "tokenizer_file is"),
    "arguments of a tokenizer": (tokenizer(init_inputs=["/etc/passwd"]), "no init_inputs"),
    "an adapter of another model": (edit_json("adapter_config.json", base_model_name_or_path="strangers/model"), "merge the two"),
}


@pytest.mark.parametrize("name", NAMES)
def test_what_a_configuration_may_name_is_a_list(llama: Path, name: str) -> None:
    edit, message = NAMES[name]
    edit(llama)
    with pytest.raises(ModelError, match=message):
        load_model(str(llama))


def test_shards_of_another_folder_are_refused(llama: Path) -> None:
    shutil.move(llama / "model.safetensors", llama.parent / "model.safetensors")
    index = {"metadata": {"total_size": 1}, "weight_map": {"model.embed_tokens.weight": "../model.safetensors"}}
    (llama / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"of its own folder as its weights, got '\.\./model\.safetensors'"):
        load_model(str(llama))


SIZES: dict[str, tuple[Edit, str]] = {
    "positions": (config(max_position_embeddings=10**12), "max_position_embeddings of .* from -1 to"),
    "layers": (config(num_hidden_layers=10**7), "num_hidden_layers of .* from 0 to 1000"),
    "experts": (config(num_local_experts=10**6), "num_local_experts"),
    "layers times experts": (config(num_hidden_layers=900, num_local_experts=4000), "layers times experts"),
    "a negative width": (config(hidden_size=-64), "hidden_size of .* got -64"),
    "a width of text": (config(hidden_size="64"), "hidden_size of .* got '64'"),
    "a width that is no number": (config(hidden_size=float("nan")), "hidden_size"),
    "words": (config(vocab_size=2**40), "vocab_size"),
    "words of a part": (config(text_config={"vocab_size": 2**40}), r"text_config\.vocab_size"),
    "a number of thousands of bits": (config(anything=1 << 4000), "128 bits"),
    "depth": (lambda folder: (folder / "config.json").write_text('{"a":' + "[" * 500 + "]" * 500 + "}"), "64 deep"),
    "more depth": (lambda folder: (folder / "config.json").write_text("[" * 10**6), "64 deep"),
    "no object": (lambda folder: (folder / "config.json").write_text("[]"), "a JSON object"),
    "bytes": (lambda folder: (folder / "config.json").write_text(" " * 2**25), r"16,777,216 bytes at most"),
    # Within the bounds, but not what the files hold: transformers would fill a model of 400 GB with random numbers.
    "more than the files hold": (config(vocab_size=2**20, hidden_size=2**14, num_hidden_layers=100), "its files hold"),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_held_to_bounds_before_anything_is_built(llama: Path, name: str) -> None:
    edit, message = SIZES[name]
    edit(llama)
    with pytest.raises(ModelError, match=message):
        load_model(str(llama))


@pytest.fixture(scope="module")
def checkpoint(llama_folder: str, text_file: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "m.ec"
    edgecomp.compress(llama_folder, RECIPE, text_file, samples=2, sequence_length=8).save(folder)
    return folder


def sign(folder: Path, **source: Any) -> None:
    """The manifest of a checkpoint that was changed, all digests right."""
    from hashlib import sha256

    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["source"].update(source)
    manifest["files"] = {name: sha256((folder / name).read_bytes()).hexdigest() for name in manifest["files"]}
    path.write_text(sealed(manifest))


@pytest.mark.parametrize(
    ("edit", "source", "message"),
    [
        (config(attn_implementation="strangers/attention"), {}, "one of eager, sdpa"),
        (config(max_position_embeddings=10**12), {}, "max_position_embeddings"),
        (config(), {"architecture": "Trainer"}, "of an architecture that transformers .* has, got 'Trainer'"),
        (config(), {"architecture": "pipeline"}, "of an architecture that transformers .* has, got 'pipeline'"),
        (config(), {"architecture": 3}, "must tell its model's architecture"),
        (config(), {"task": "anything"}, "must tell its model's architecture"),
        (config(vocab_size=1000), {}, "model.embed_tokens|lm_head"),
    ],
)
def test_a_checkpoint_names_no_code_and_no_sizes(
    checkpoint: Path, tmp_path: Path, edit: Edit, source: dict[str, Any], message: str
) -> None:
    folder = Path(shutil.copytree(checkpoint, tmp_path / "m.ec"))
    edit(folder / "model")
    sign(folder, **source)
    with pytest.raises(EdgecompError, match=message):
        edgecomp.load(folder)


class Runs:
    """Pickled, it makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_pickled_weights_are_not_read(llama: Path, tmp_path: Path) -> None:
    (llama / "model.safetensors").unlink()
    (llama / "pytorch_model.bin").write_bytes(pickle.dumps(Runs(tmp_path / "ran")))
    with pytest.raises(ModelError, match=r"must be \.safetensors.*--trust-code"):
        load_model(str(llama))
    assert not (tmp_path / "ran").exists()


def test_pickled_weights_are_read_for_those_who_want_it(llama: Path, tmp_path: Path) -> None:
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(llama)
    (llama / "model.safetensors").unlink()
    torch.save(model.state_dict(), llama / "pytorch_model.bin")
    loaded = load_model(str(llama), Trust(code=True))
    assert torch.equal(loaded.module.get_parameter("body.model.norm.weight"), model.get_parameter("model.norm.weight"))


def test_programs_are_code(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data/sample_inputs/model.pt", pickle.dumps(Runs(tmp_path / "ran")))
    with pytest.raises(ModelError, match=r"runs code that it may hold.*--trust-code"):
        load_model(str(path))
    assert not (tmp_path / "ran").exists()


def test_the_current_folder_is_no_place_for_modules_that_nobody_named(llama: Path, tmp_path: Path) -> None:
    """A model's folder may hold files named like packages that libraries look for."""
    for name in ("kernels", "peft", "flash_attn", "bitsandbytes", "optimum", "gguf_parser", "sitecustomize"):
        (llama / f"{name}.py").write_text(f"import pathlib; pathlib.Path({str(tmp_path / 'ran')!r}).touch()")
    code = "from edgecomp.cli import main; import sys; main(['compress', '.', '-r', 'none', '-o', 'm.ec']); print(sys.path)"
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=llama, capture_output=True, text=True, check=True)
    assert str(llama) not in done.stdout
    assert not (tmp_path / "ran").exists()


def gguf_of(count_tensors: int, count_entries: int, rest: bytes = b"", version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, count_tensors, count_entries) + rest


def gguf_text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def gguf_tensor(*shape: int, kind: int = 0, offset: int = 0) -> bytes:
    return gguf_text(b"t") + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


GGUF: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "empty"),
    "no header": (b"GGUF", "ends before its header"),
    "another version": (gguf_of(0, 0, version=99), "version must be one of"),
    "tensors without end": (gguf_of(2**60, 0), "131,072 tensors at most"),
    "entries without end": (gguf_of(0, 2**60), "65,536 entries at most"),
    "a name without end": (gguf_of(0, 1, struct.pack("<Q", 2**62)), "bytes at most"),
    "a name beyond the end": (gguf_of(0, 1, struct.pack("<Q", 1000)), "ends before its header"),
    "a list without end": (gguf_of(0, 1, gguf_text(b"k") + struct.pack("<IIQ", 9, 4, 2**40)), "16,777,216 values at most"),
    "a list beyond the end": (gguf_of(0, 1, gguf_text(b"k") + struct.pack("<IIQ", 9, 8, 1000)), "ends before its header"),
    "a list of lists": (gguf_of(0, 1, gguf_text(b"k") + struct.pack("<IIQ", 9, 9, 1)), "type 9"),
    "an entry of no type": (gguf_of(0, 1, gguf_text(b"k") + struct.pack("<I", 77)), "type 77"),
    "no alignment": (gguf_of(0, 1, gguf_text(b"general.alignment") + struct.pack("<II", 4, 0)), "alignment"),
    "a tensor of terabytes": (gguf_of(1, 0, gguf_tensor(2**20, 2**20)), "need"),
    "a tensor of more than that": (gguf_of(1, 0, gguf_tensor(2**63, 2**63)), "need"),
    "a tensor beyond the end": (gguf_of(1, 0, gguf_tensor(4, offset=2**40) + bytes(64)), "need"),
    "a tensor of many dimensions": (gguf_of(1, 0, gguf_tensor(*[1] * 1000)), "1 to 4 dimensions"),
    "a tensor of no type": (gguf_of(1, 0, gguf_tensor(4, kind=999) + bytes(64)), "type 999"),
}


@pytest.mark.parametrize("name", GGUF)
def test_gguf_files_are_held_to_bounds(tmp_path: Path, name: str) -> None:
    content, message = GGUF[name]
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        load_model(str(path))


def test_a_recipe_names_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even that of a module that lies beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "theirs_objective.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'ran')!r})\ndef make(context): return 1\n")
    passes = [RECIPE["passes"][0], {"method": "jlcm", "objective": "theirs_objective:make"}]
    (tmp_path / "r.json").write_text(json.dumps({"version": 1, "passes": passes}))
    call: dict[str, Any] = {"calibration": "tiny_models:tokens"}
    with pytest.raises(ConfigError, match=r"names code that would be run, passes\.1\.objective = .*--trust-code"):
        edgecomp.compress("tiny_models:tied_tokens", "r.json", **call)
    assert not (tmp_path / "ran").exists()
    for said in ({"trust": Trust(code=True)}, {"overrides": ["passes.1.objective=theirs_objective:make"]}):
        with pytest.raises(ConfigError, match="must return an edgecomp"):
            edgecomp.compress("tiny_models:tied_tokens", "r.json", **call, **said)
    assert (tmp_path / "ran").exists()
