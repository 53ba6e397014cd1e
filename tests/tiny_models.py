"""Tiny models with random weights: `tiny_models:convolutional` and so on are factories for load_model; folders for transformers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edgecomp.tensor import TensorSpec

TEXT = "the quick brown fox jumps over the lazy dog while seven wizards make toxic brew for an evil queen\n" * 12


class Convolutional(nn.Module):
    """Convolutions (strided, padded "same", grouped, depthwise), a norm, a layer used twice under two names, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, stride=2, padding=1)
        self.same = nn.Conv2d(32, 64, 3, padding="same")
        self.grouped = nn.Conv2d(64, 64, 3, padding=1, groups=2)
        self.depthwise = nn.Conv2d(64, 64, 3, padding=1, groups=64)
        self.norm = nn.BatchNorm2d(64)
        self.first = nn.Linear(64, 64)
        self.second = self.first
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.same(self.stem(x)).relu()
        x = self.norm(self.depthwise(self.grouped(x))).mean(dim=(2, 3))
        y: Tensor = self.head(self.second(self.first(x).relu()).relu())
        return y


def convolutional() -> nn.Module:
    torch.manual_seed(0)
    return Convolutional()


def described() -> tuple[nn.Module, list[TensorSpec]]:
    return convolutional(), [TensorSpec("image", "float32", ("batch", 3, 16, 16))]


def images() -> Iterator[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    for _ in range(4):
        yield {"image": rng.standard_normal((2, 3, 16, 16)).astype(np.float32)}


class TiedTokens(nn.Module):
    """An embedding whose weight is also the head's."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(96, 64)
        self.fc = nn.Linear(64, 64)
        self.head = nn.Linear(64, 96, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        y: Tensor = self.head(self.fc(self.table(ids)).relu())
        return y


def tied_tokens() -> nn.Module:
    torch.manual_seed(0)
    return TiedTokens()


def tokens() -> list[dict[str, np.ndarray]]:
    return [{"ids": np.random.default_rng(0).integers(0, 96, (2, 7))}]


class Scaled(nn.Module):
    """A layer, and gains one of which float16 makes 0: too few to stay float32, and as large in the output as the others."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 128)
        self.gains = nn.Parameter(torch.cat([torch.full((1,), 1e-8), torch.ones(127)]))
        self.register_buffer("factors", 1 / self.gains.detach(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(x) * self.gains * self.factors
        return y


def scaled() -> tuple[nn.Module, list[TensorSpec]]:
    torch.manual_seed(0)
    return Scaled(), [TensorSpec("x", "float32", ("batch", 64))]


def scaled_inputs() -> list[dict[str, np.ndarray]]:
    return [{"x": np.random.default_rng(0).standard_normal((2, 64)).astype(np.float32)}]


def save_tokenizer(folder: Path) -> int:
    """A byte-pair tokenizer of the words of TEXT, for AutoTokenizer; returns its vocabulary's size."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=["[PAD]", "[UNK]"], show_progress=False)
    tokenizer.train_from_iterator([TEXT], trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]").save_pretrained(folder)
    return int(tokenizer.get_vocab_size())


def save_bert(folder: Path) -> Path:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=save_tokenizer(folder),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def save_llama(folder: Path) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=save_tokenizer(folder),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=96,
        max_position_embeddings=64,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def save_gpt2(folder: Path) -> Path:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=save_tokenizer(folder), n_embd=64, n_layer=2, n_head=2, n_positions=64)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def save_text(path: Path) -> Path:
    path.write_text(TEXT, encoding="utf-8")
    return path
