"""Weights of GGUF files: those that transformers would give, in pages of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from edgecomp.errors import ModelError
from edgecomp.models.gguf import fill

CONFIG: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
NAMES = {
    "attn_q": (64, 64), "attn_k": (32, 64), "attn_v": (32, 64), "attn_output": (64, 64),
    "ffn_gate": (96, 64), "ffn_up": (96, 64), "ffn_down": (64, 96),
}  # fmt: skip


def write(path: Path, *, tied: bool, without: str = "") -> Path:
    """A Llama of random weights, matrices in blocks of 4 bits."""
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(CONFIG["num_hidden_layers"])
    writer.add_context_length(128)
    writer.add_embedding_length(CONFIG["hidden_size"])
    writer.add_feed_forward_length(CONFIG["intermediate_size"])
    writer.add_head_count(CONFIG["num_attention_heads"])
    writer.add_head_count_kv(CONFIG["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(CONFIG["vocab_size"])
    shapes = {f"blk.{block}.{name}.weight": shape for block in range(2) for name, shape in NAMES.items()}
    shapes |= {f"blk.{block}.{name}_norm.weight": (64,) for block in range(2) for name in ("attn", "ffn")}
    shapes |= {"token_embd.weight": (64, 64), "output_norm.weight": (64,)} | ({} if tied else {"output.weight": (64, 64)})
    for name, shape in shapes.items():
        kind = gguf.GGMLQuantizationType.Q4_1 if len(shape) == 2 else gguf.GGMLQuantizationType.F32
        values = rng.standard_normal(shape).astype(np.float32)
        if name != without:
            writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def model(*, tied: bool) -> nn.Module:
    """On the meta device."""
    with torch.device("meta"):
        body: nn.Module = LlamaForCausalLM(LlamaConfig(**CONFIG, tie_word_embeddings=tied))
    body.tie_weights()
    return body


@pytest.mark.parametrize("tied", [True, False])
def test_weights_are_those_of_transformers(tmp_path: Path, tied: bool) -> None:
    path, body = write(tmp_path / "m.gguf", tied=tied), model(tied=tied)
    expected = load_gguf_checkpoint(path, return_tensors=True, model_to_load=model(tied=tied))["tensors"]
    assert fill(body, path)
    state = body.state_dict()
    assert expected.keys() == state.keys() - ({"lm_head.weight"} if tied else set())
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor), name
    assert (body.get_parameter("lm_head.weight") is body.get_parameter("model.embed_tokens.weight")) == tied


def test_weights_are_pages_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    body = model(tied=True)
    assert fill(body, write(tmp_path / "m.gguf", tied=True))
    address = body.get_parameter("model.layers.1.mlp.up_proj.weight").data_ptr()
    ranges = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line]
    bounds = [[int(bound, 16) for bound in columns[0].split("-")] for columns in ranges]
    assert any(start <= address < stop for start, stop in bounds)
    assert [file.name for file in tmp_path.iterdir()] == ["m.gguf"]


def test_a_file_that_lacks_a_weight_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    body = model(tied=True)
    assert not fill(body, write(tmp_path / "m.gguf", tied=True, without="blk.1.ffn_up.weight"))
    assert all(parameter.is_meta for parameter in body.parameters())


def test_a_disk_without_room_is_named(tmp_path: Path) -> None:
    """Its real end is a file system's; here the limit that the system puts on the size of files."""
    import resource
    import signal

    path, body = write(tmp_path / "m.gguf", tied=True), model(tied=True)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, old[1]))
    try:
        with pytest.raises(ModelError, match=r"need room for .* bytes in .* while the model is worked on: File too large.*TMPDIR"):
            fill(body, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert all(parameter.is_meta for parameter in body.parameters())
