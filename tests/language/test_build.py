"""Decoders of every family in PyTorch, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import language_models
import pytest
import torch

from edgecomp.errors import ExportError
from edgecomp.exported.language_folder import Attention
from edgecomp.language import DecoderOptions, families, with_cache
from edgecomp.language.build import run_in_parts
from edgecomp.models import body_of


@pytest.mark.parametrize("attention", ["fused", pytest.param("gqa", marks=pytest.mark.long), "portable"])
@pytest.mark.parametrize("family", language_models.CONFIGURATIONS)
def test_a_decoder_computes_what_its_model_does(tmp_path: Path, family: str, attention: Attention) -> None:
    model = language_models.compressed(tmp_path, family, compute="int8")
    decoder = with_cache(model, DecoderOptions(attention=attention))  # which holds them together
    layers = {name.split(".", 2)[2] for name in decoder.plans if name.startswith("blocks.0.")}
    assert layers == {"qkv.layers.0", "output.layers.0", "up.layers.0", "down.layers.0"}
    assert {plan.compute for plan in decoder.plans.values() if plan.terms[0][0].op == "linear"} == {"int8"}


def test_stacking_changes_no_byte(tmp_path: Path) -> None:
    model = language_models.compressed(tmp_path, "qwen2")
    decoder = with_cache(model, DecoderOptions())
    assert sum(f.packed_bytes for f in decoder.factors.values()) == sum(f.packed_bytes for f in model.factors.values())


def test_layers_packed_differently_stay_products_of_their_own(tmp_path: Path) -> None:
    from edgecomp.compression import compress

    language_models.save_language_model(tmp_path, "llama")
    settings = ["passes.0.weighting=none", 'passes.0.layers=[{match=["*k_proj"], bits=3}, {match=["*up_proj"], bits=5}]']
    model = compress(str(tmp_path), "lut-4bit", overrides=[*settings, 'passes.0.skip=["*.1.self_attn.v_proj", "*.1.mlp.*"]'])
    decoder = with_cache(model, DecoderOptions())
    assert {"blocks.0.qkv.layers.2", "blocks.0.up.layers.1"} <= decoder.plans.keys()
    assert "blocks.1.qkv.layers.2" not in decoder.plans


def test_a_wrong_declaration_never_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = language_models.compressed(tmp_path, "gemma")
    wrong = {**families.FAMILIES, "gemma": replace(families.FAMILIES["gemma"], norm_offset=0.0)}
    monkeypatch.setattr(families, "FAMILIES", wrong)
    with pytest.raises(ExportError, match="logits differ"):
        with_cache(model, DecoderOptions())


def test_an_unknown_family_is_told_what_to_declare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = language_models.compressed(tmp_path, "llama")
    body_of(model.module).config.model_type = "strange"
    with pytest.raises(ExportError, match=r"families\.py"):
        with_cache(model, DecoderOptions())


def test_frequencies_that_change_with_the_length_are_refused(tmp_path: Path) -> None:
    model = language_models.compressed(tmp_path, "llama")
    body_of(model.module).config.rope_parameters = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    with pytest.raises(ExportError, match="'dynamic'"):
        with_cache(model, DecoderOptions())


def test_frequencies_that_do_not(tmp_path: Path) -> None:
    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    with_cache(language_models.compressed(tmp_path, "llama", rope_parameters=rope), DecoderOptions())


def test_a_context_beyond_the_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="64 at most"):
        with_cache(language_models.compressed(tmp_path, "llama"), DecoderOptions(context=65))


def test_padding_behind_a_row_counts_for_nothing(tmp_path: Path) -> None:
    model = language_models.compressed(tmp_path, "llama")
    decoder = with_cache(model, DecoderOptions())
    ids, mask = torch.tensor([[5, 17, 40, 0, 0, 8]]), torch.tensor([[1, 1, 1, 0, 0, 1]])
    with torch.no_grad():
        found = run_in_parts(body_of(decoder.module), ids, mask, [5, 1])  # type: ignore[arg-type]
        expected = run_in_parts(body_of(decoder.module), ids[:, mask[0] > 0], torch.ones(1, 4), [3, 1])  # type: ignore[arg-type]
    assert torch.allclose(found[:, mask[0] > 0], expected, atol=1e-4)
