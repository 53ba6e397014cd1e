"""The longest sequence that a model takes is told by its table of positions, and nothing longer is made for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgecomp.models import load_model
from edgecomp.models.limits import sequence_limit

SIZES = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 100}


@pytest.mark.parametrize(
    ("architecture", "settings", "limit"),
    [
        ("GPT2LMHeadModel", {"n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 100, "n_positions": 24}, 24),
        ("BertModel", SIZES | {"max_position_embeddings": 24}, 24),
        ("RobertaModel", SIZES | {"max_position_embeddings": 26}, 24),  # whose first two rows are the padding's and unused
        (
            "OPTForCausalLM",
            {
                "hidden_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "ffn_dim": 64,
                "vocab_size": 100,
                "word_embed_proj_dim": 32,
                "max_position_embeddings": 24,
            },
            24,
        ),
        ("LlamaForCausalLM", SIZES | {"max_position_embeddings": 24}, None),
    ],
)
def test_the_limit_is_that_of_the_table_of_positions(architecture: str, settings: dict[str, object], limit: int | None) -> None:
    import transformers

    kind = getattr(transformers, architecture)
    model = kind(kind.config_class(**settings)).eval()
    assert sequence_limit(model, model.config) == limit
    with torch.no_grad():
        model(torch.full((1, 24), 5))  # and so long a sequence runs
        if limit is not None:
            with pytest.raises((IndexError, RuntimeError)):
                model(torch.full((1, 25), 5))


def test_samples_of_text_are_no_longer_than_the_model_takes(bert_folder: str, tmp_path: Path) -> None:
    loaded = load_model(bert_folder)
    limit = loaded.limits["sequence"]
    text = tmp_path / "long.txt"
    text.write_text(" ".join(["the"] * (2 * limit)))
    (sample,) = loaded.samples(str(text), count=1, sequence_length=10 * limit)
    assert sample["input_ids"].shape == (1, limit)
    assert loaded.run(sample)["last_hidden_state"].shape[1] == limit
