"""What a model's specification loads, and what is refused."""

from __future__ import annotations

import shutil
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from safetensors.numpy import load_file, save_file
from torch import nn

from edgecomp.errors import CalibrationError, ModelError
from edgecomp.layers import find_layers
from edgecomp.models import body_of, load_model
from edgecomp.tensor import TensorSpec
from edgecomp.trust import Trust

IMAGE = next(tiny_models.images())


def test_an_encoder_gives_its_token_states(bert_folder: str) -> None:
    from transformers import BertModel

    loaded = load_model(bert_folder)
    assert (loaded.kind, loaded.outputs) == ("encoder", ("last_hidden_state",))
    ids = np.array([[5, 6, 7], [8, 0, 0]])
    mask = np.array([[1, 1, 1], [1, 0, 0]])
    got = loaded.run({"attention_mask": mask, "input_ids": ids})["last_hidden_state"]
    original = BertModel.from_pretrained(bert_folder).eval()
    with torch.no_grad():
        expected = original(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).last_hidden_state
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_a_language_model_gives_logits_and_takes_windows_of_text(llama_folder: str, text_file: str) -> None:
    loaded = load_model(llama_folder)
    assert (loaded.kind, loaded.outputs) == ("causal-lm", ("logits",))
    samples = loaded.samples(text_file, count=3, sequence_length=8)
    assert [sample["input_ids"].shape for sample in samples] == [(1, 8)] * 3
    assert loaded.run(samples[0])["logits"].shape[:2] == (1, 8)


def test_an_encoder_takes_sentences(bert_folder: str, text_file: str) -> None:
    samples = load_model(bert_folder).samples(text_file, count=2, sequence_length=4)
    assert [sample["input_ids"].shape for sample in samples] == [(1, 4)] * 2


def test_a_factory_may_describe_its_inputs() -> None:
    plain, described = load_model("tiny_models:convolutional"), load_model("tiny_models:described")
    assert plain.inputs == ()
    assert described.inputs == (TensorSpec("image", "float32", ("batch", 3, 16, 16)),)
    assert not plain.module.training
    assert np.array_equal(described.described([IMAGE]).run(IMAGE)["output"], plain.described([IMAGE]).run(IMAGE)["output"])


def test_inputs_and_outputs_are_told_by_a_sample() -> None:
    plain = load_model("tiny_models:convolutional")
    loaded = plain.described([IMAGE])
    assert (plain.inputs, plain.outputs) == ((), ())  # what others hold stays as it is
    assert loaded.inputs == (TensorSpec("image", "float32", ("batch", 3, 16, 16)),)
    assert loaded.outputs == ("output",)


def test_an_exported_program_has_its_layers_back(tmp_path: Path) -> None:
    module = tiny_models.convolutional().eval()
    image = torch.from_numpy(IMAGE["image"])
    program = torch.export.export(module, (image,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    path = tmp_path / "model.pt2"
    torch.export.save(program, path)
    loaded = load_model(str(path), Trust(code=True))
    kinds = {name: type(layer) for name, layer in find_layers(body_of(loaded.module)).items()}
    assert {name: kinds[name] for name in ("stem", "same", "grouped", "depthwise", "head")} == {
        "stem": nn.Conv2d,
        "same": nn.Conv2d,
        "grouped": nn.Conv2d,
        "depthwise": nn.Conv2d,
        "head": nn.Linear,
    }
    (spec,) = loaded.inputs
    assert (spec.dtype, spec.dims[1:]) == ("float32", (3, 16, 16))
    assert isinstance(spec.dims[0], str)
    with torch.no_grad():
        torch.testing.assert_close(loaded({spec.name: IMAGE["image"]})[0], module(image))


def save_llama_as(folder: Path, source: str, dtypes: dict[str, torch.dtype], shards: str = "50GB") -> str:
    """A copy of a model whose parameters are stored in the dtype of the first pattern that is part of their name."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(source)
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.to(next(dtype for pattern, dtype in dtypes.items() if pattern in name))
    model.save_pretrained(folder, max_shard_size=shards)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path(source, name), folder)
    return str(folder)


BF16, F16, F32 = torch.bfloat16, torch.float16, torch.float32


@pytest.mark.skipif(sys.platform != "linux", reason="reads mapped files from /proc")
@pytest.mark.parametrize(
    ("dtypes", "shards", "loaded_dtype"),
    [
        ({"": BF16}, "50KB", BF16),
        ({"": F16}, "50GB", F16),
        ({"": F32}, "50KB", F32),
        ({"norm": F32, "": BF16}, "50KB", F32),
    ],
    ids=["bfloat16 shards", "float16", "float32 shards", "mixed"],
)
def test_weights_stay_as_they_are_stored_and_where_they_are(
    llama_folder: str, tmp_path: Path, dtypes: dict[str, torch.dtype], shards: str, loaded_dtype: torch.dtype
) -> None:
    from transformers import AutoModelForCausalLM

    folder = save_llama_as(tmp_path / "llama", llama_folder, dtypes, shards)
    loaded = load_model(folder)
    assert {parameter.dtype for parameter in loaded.module.parameters()} == {loaded_dtype}
    weight = loaded.module.get_parameter("body.model.layers.1.mlp.up_proj.weight")
    mapped = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if folder in line]
    bounds = [[int(address, 16) for address in line[0].split("-")] for line in mapped]
    assert any(start <= weight.data_ptr() < end for start, end in bounds) == (len(dtypes) == 1)
    sample = {"input_ids": np.arange(8)[None], "attention_mask": np.ones((1, 8), np.int64)}
    original = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = original(*(torch.from_numpy(value) for value in sample.values())).logits
    assert torch.equal(loaded(sample)[0], expected)
    assert loaded.module.get_parameter("body.lm_head.weight") is loaded.module.get_parameter("body.model.embed_tokens.weight")


@pytest.mark.parametrize("said", ["bfloat16", "float16"])
def test_what_a_configuration_says_rounds_nothing(llama_folder: str, tmp_path: Path, said: str) -> None:
    folder = tmp_path / "llama"
    shutil.copytree(llama_folder, folder)
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"dtype": "float32"', f'"dtype": "{said}"'))
    assert said in config.read_text()
    loaded, original = load_model(str(folder)), load_model(llama_folder)
    expected = original.module.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.module.state_dict().items())


def test_what_a_model_computes_when_it_is_built_is_not_rounded(bert_folder: str, tmp_path: Path, monkeypatch: Any) -> None:
    """A buffer that no file holds, computed in PyTorch's default dtype, which transformers sets to that of the weights."""
    from transformers import AutoModel, BertModel

    class Positions(BertModel):
        def __init__(self, config: Any, **options: Any) -> None:
            super().__init__(config, **options)
            self.register_buffer("positions", torch.linspace(0, 1, 7), persistent=False)

        def _init_weights(self, module: nn.Module) -> None:
            super()._init_weights(module)
            if module is self:
                module.positions.copy_(torch.linspace(0, 1, 7))

    folder = tmp_path / "bert"
    shutil.copytree(bert_folder, folder)
    BertModel.from_pretrained(bert_folder).to(BF16).save_pretrained(folder)
    monkeypatch.setattr(AutoModel, "from_pretrained", Positions.from_pretrained)
    loaded = load_model(str(folder))
    assert loaded.module.get_parameter("body.embeddings.word_embeddings.weight").dtype == BF16
    assert torch.equal(loaded.module.get_buffer("body.positions"), torch.linspace(0, 1, 7))


def test_damaged_weights_are_a_model_error(bert_folder: str, tmp_path: Path) -> None:
    folder = tmp_path / "bert"
    shutil.copytree(bert_folder, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="must be a Hugging Face folder"):
        load_model(str(folder))


def test_architectures_without_an_adapter_are_refused(bert_folder: str, tmp_path: Path) -> None:
    folder = tmp_path / "bert"
    shutil.copytree(bert_folder, folder)
    config = folder / "config.json"
    config.write_text(config.read_text().replace("BertModel", "BertForSequenceClassification"))
    with pytest.raises(ModelError, match=r"BertForSequenceClassification: wrap other models"):
        load_model(str(folder))


@pytest.fixture
def bad_factories(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("bad_factories")
    made: dict[str, Any] = {"nothing": None, "specs": (nn.Linear(1, 1), [3]), "number": (nn.Linear(1, 1), 3)}
    for name, value in made.items():
        setattr(module, name, lambda value=value: value)
    monkeypatch.setitem(sys.modules, "bad_factories", module)


@pytest.mark.usefixtures("bad_factories")
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("bad_factories:nothing", "must return an nn.Module.*got NoneType"),
        ("bad_factories:specs", "list of edgecomp.tensor.TensorSpec"),
        ("bad_factories:number", "list of edgecomp.tensor.TensorSpec"),
        ("bad_factories:missing", "importable package.module:attribute"),
        ("no_such_module:f", "importable package.module:attribute"),
        (":f", "importable package.module:attribute"),
        ("bad_factories.py:missing", r"without \.py: give bad_factories:FUNCTION$"),
        ("./lib/bad_factories.py:missing", r"give bad_factories:FUNCTION, and run in \./lib or put that folder into PYTHONPATH"),
        ("bad_factories.py", "give bad_factories:FUNCTION, not bad_factories.py"),
        ("missing.pt2", "no such file"),
        ("missing/folder", "must be a Hugging Face folder"),
        ("missing/model.gguf", "must be a Hugging Face folder or a .gguf file, and there is none at that path"),
        ("missing/", "there is none at that path"),
        ("./missing", "there is none at that path"),
    ],
)
def test_specifications_of_no_model_are_refused(spec: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_model(spec)


def test_a_file_that_is_no_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(b"not a program")
    with pytest.raises(ModelError, match=r"written by torch\.export\.save"):
        load_model(str(path), Trust(code=True))


def test_text_needs_a_tokenizer(text_file: str) -> None:
    with pytest.raises(CalibrationError, match="no tokenizer"):
        load_model("tiny_models:described").samples(text_file, count=1, sequence_length=8)


def test_outputs_must_be_tensors() -> None:
    loaded = load_model("tiny_models:described")
    body_of(loaded.module).forward = lambda image: {"logits": image, "count": 3}  # type: ignore[method-assign]
    with pytest.raises(ModelError, match="count is of type int: return tensors alone"):
        loaded.described([IMAGE])


def test_parameters_must_have_values() -> None:
    loaded = load_model("tiny_models:described")
    loaded.module.to("meta")
    with pytest.raises(ModelError, match=r"stem\.weight is on the meta device: load the weights first"):
        loaded.described([IMAGE])


def test_samples_that_the_model_does_not_take_are_refused() -> None:
    with pytest.raises(CalibrationError, match=r"fails on float32 \[1, 4, 16, 16\]"):
        load_model("tiny_models:described")({"image": np.zeros((1, 4, 16, 16))})


def test_missing_weights_are_refused(bert_folder: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bert_folder, tmp_path / "bert"))
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.0.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"every weight.*lacks encoder\.layer\.0\.output\.dense\.weight"):
        load_model(str(folder))
