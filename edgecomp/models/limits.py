"""How long a sequence a model takes, where its tables of positions decide that."""

from __future__ import annotations

from typing import Any

from torch import nn


def sequence_limit(body: nn.Module, config: Any) -> int | None:
    """Tokens that a Hugging Face model takes at most: the rows of its table of learned positions, without those that no token gets.

    Rotary, relative and linear positions have no table, and no limit that an exported model would meet: None.

    Args:
        body: the model.
        config: its configuration, which says how many positions there are.

    """
    declared = next(
        (n for key in ("max_position_embeddings", "n_positions") if (n := getattr(config, key, None)) is not None), None
    )
    for name, module in body.named_modules():
        table = isinstance(module, nn.Embedding) and any(word in name for word in ("position", "wpe", "pos_emb"))
        if table and declared is not None and declared <= module.num_embeddings <= declared + 2:
            # RoBERTa counts from behind the padding's row, OPT from its third.
            first = module.padding_idx + 1 if module.padding_idx is not None else int(getattr(module, "offset", 0))
            return int(module.num_embeddings) - first
    return None
