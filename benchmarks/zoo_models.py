"""The models of zoo.py: architectures of transformers and of plain PyTorch, small, with random weights.

Each is a function that gives the module and a list of samples, whose lengths vary where the model's may: configurations of
transformers with small sizes, and modules such as are found in tutorials.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn

Sample = Mapping[str, np.ndarray]
Made = tuple[nn.Module, Sequence[Sample]]

_SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128, "vocab_size": 300}
_IMAGE = {"image_size": 32, "patch_size": 8}


def _floats(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _ids(*shape: int, most: int = 300) -> np.ndarray:
    return np.random.default_rng(len(shape)).integers(3, most, shape)


def _tokens(*names: str, lengths: Sequence[int] = (9, 14)) -> list[Sample]:
    """Token ids and masks of ones, or whatever `names` are."""
    made = {"attention_mask": lambda n: np.ones((2, n), np.int64)}
    return [{name: made.get(name, lambda n: _ids(2, n))(length) for name in names} for length in lengths]


def _build(architecture: str, samples: Sequence[Sample], **settings: Any) -> Callable[[], Made]:
    """A model of transformers from its configuration class's defaults and these settings."""

    def make() -> Made:
        torch.manual_seed(0)
        model_class = getattr(transformers, architecture)
        config = model_class.config_class(**settings)
        if hasattr(config, "use_cache"):
            config.use_cache = False
        return model_class(config).eval(), samples

    return make


TEXT, IDS = _tokens("input_ids", "attention_mask"), _tokens("input_ids")
IMAGES = [{"pixel_values": _floats(batch, 3, 32, 32)} for batch in (2, 3)]
AUDIO = [{"input_values": _floats(2, length)} for length in (2000, 3000)]
_CNN = {"hidden_sizes": [32, 64], "depths": [1, 1]}
_WAVE = _SIZES | {"conv_dim": (32, 32), "conv_stride": (5, 2), "conv_kernel": (10, 3), "num_feat_extract_layers": 2}
_WAVE |= {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}

_SWIN = {"image_size": 32, "patch_size": 4, "embed_dim": 32, "depths": [1, 1], "num_heads": [2, 4], "window_size": 4}
_NECK = [16, 32, 32, 32, 32, 32, 64]

TRANSFORMERS: dict[str, tuple[str, Callable[[], Made]]] = {
    # encoders of text
    "bert": ("text encoder", _build("BertModel", TEXT, **_SIZES)),
    "roberta": ("text encoder", _build("RobertaModel", TEXT, **_SIZES)),
    "distilbert": ("text encoder", _build("DistilBertModel", TEXT, dim=64, n_layers=2, n_heads=4, hidden_dim=128, vocab_size=300)),
    "albert": ("text encoder", _build("AlbertModel", TEXT, embedding_size=32, **_SIZES)),
    "mpnet": ("text encoder", _build("MPNetModel", TEXT, **_SIZES)),
    "electra": ("text encoder", _build("ElectraModel", TEXT, embedding_size=32, **_SIZES)),
    "deberta-v2": ("text encoder", _build("DebertaV2Model", TEXT, relative_attention=True, pos_att_type=["p2c", "c2p"], **_SIZES)),
    "modernbert": ("text encoder", _build("ModernBertModel", TEXT, pad_token_id=0, **_SIZES)),
    "xlm-roberta": ("text encoder", _build("XLMRobertaModel", TEXT, **_SIZES)),
    "bert-masked-lm": ("text encoder", _build("BertForMaskedLM", TEXT, **_SIZES)),
    "bert-classifier": ("text encoder", _build("BertForSequenceClassification", TEXT, **_SIZES)),
    "bert-token-classifier": ("text encoder", _build("BertForTokenClassification", TEXT, **_SIZES)),
    "squeezebert": ("text encoder", _build("SqueezeBertModel", TEXT, embedding_size=64, **_SIZES)),
    "funnel": (
        "text encoder",
        _build("FunnelBaseModel", TEXT, vocab_size=300, d_model=64, n_head=4, d_head=16, d_inner=128, block_sizes=[1, 1]),
    ),
    # language models
    "llama": ("language model", _build("LlamaForCausalLM", TEXT, num_key_value_heads=2, **_SIZES)),
    "mistral": ("language model", _build("MistralForCausalLM", TEXT, num_key_value_heads=2, **_SIZES)),
    "qwen2": ("language model", _build("Qwen2ForCausalLM", TEXT, num_key_value_heads=2, **_SIZES)),
    "qwen3": ("language model", _build("Qwen3ForCausalLM", TEXT, num_key_value_heads=2, head_dim=16, **_SIZES)),
    "gemma": ("language model", _build("GemmaForCausalLM", TEXT, num_key_value_heads=2, head_dim=16, **_SIZES)),
    "gemma2": ("language model", _build("Gemma2ForCausalLM", TEXT, num_key_value_heads=2, head_dim=16, **_SIZES)),
    "phi": ("language model", _build("PhiForCausalLM", TEXT, **_SIZES)),
    "gpt2": ("language model", _build("GPT2LMHeadModel", TEXT, n_embd=64, n_layer=2, n_head=4, vocab_size=300, n_positions=64)),
    "gpt-neox": ("language model", _build("GPTNeoXForCausalLM", TEXT, **_SIZES)),
    "opt": (
        "language model",
        _build(
            "OPTForCausalLM", TEXT, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, ffn_dim=128, vocab_size=300,
            word_embed_proj_dim=64,
        ),
    ),
    "bloom": ("language model", _build("BloomForCausalLM", TEXT, hidden_size=64, n_layer=2, n_head=4, vocab_size=300)),
    "falcon": ("language model", _build("FalconForCausalLM", TEXT, **_SIZES)),
    "stablelm": ("language model", _build("StableLmForCausalLM", TEXT, num_key_value_heads=4, **_SIZES)),
    "mixtral": ("language model", _build("MixtralForCausalLM", TEXT, num_key_value_heads=2, num_local_experts=4, **_SIZES)),
    "mamba": ("language model", _build("MambaForCausalLM", IDS, hidden_size=64, num_hidden_layers=2, vocab_size=300, state_size=8)),
    # encoders and decoders
    "t5-encoder": (
        "encoder-decoder",
        _build("T5EncoderModel", TEXT, d_model=64, d_ff=128, num_layers=2, num_heads=4, d_kv=16, vocab_size=300),
    ),
    "bart": (
        "encoder-decoder",
        _build(
            "BartModel", _tokens("input_ids", "decoder_input_ids"), d_model=64, encoder_layers=2, decoder_layers=2,
            encoder_ffn_dim=128, decoder_ffn_dim=128, encoder_attention_heads=4, decoder_attention_heads=4, vocab_size=300,
        ),
    ),
    # vision
    "vit": ("vision", _build("ViTModel", IMAGES, **(_SIZES | _IMAGE))),
    "vit-classifier": ("vision", _build("ViTForImageClassification", IMAGES, **(_SIZES | _IMAGE))),
    "deit": ("vision", _build("DeiTModel", IMAGES, **(_SIZES | _IMAGE))),
    "beit": ("vision", _build("BeitModel", IMAGES, **(_SIZES | _IMAGE))),
    "dinov2": ("vision", _build("Dinov2Model", IMAGES, **(_SIZES | _IMAGE))),
    "swin": ("vision", _build("SwinModel", IMAGES, **_SWIN)),
    "convnext": ("vision", _build("ConvNextModel", IMAGES, num_stages=2, **_CNN)),
    "resnet": ("vision", _build("ResNetModel", IMAGES, embedding_size=32, layer_type="basic", **_CNN)),
    "regnet": ("vision", _build("RegNetModel", IMAGES, embedding_size=32, groups_width=32, **_CNN)),
    "mobilenet-v1": ("vision", _build("MobileNetV1Model", IMAGES, image_size=32)),
    "mobilenet-v2": ("vision", _build("MobileNetV2Model", IMAGES, image_size=32, depth_multiplier=0.35)),
    "mobilevit": ("vision", _build("MobileViTModel", IMAGES, image_size=32, hidden_sizes=[32, 48, 64], neck_hidden_sizes=_NECK)),
    "segformer": (
        "vision",
        _build(
            "SegformerModel", IMAGES, num_encoder_blocks=2, depths=[1, 1], hidden_sizes=[32, 64], num_attention_heads=[1, 2],
            sr_ratios=[2, 1], patch_sizes=[7, 3], strides=[4, 2], mlp_ratios=[2, 2],
        ),
    ),
    "poolformer": ("vision", _build("PoolFormerModel", IMAGES, hidden_sizes=[32, 32, 64, 64], depths=[1, 1, 1, 1])),
    "clip-vision": ("vision", _build("CLIPVisionModel", IMAGES, **(_SIZES | _IMAGE))),
    "siglip-vision": ("vision", _build("SiglipVisionModel", IMAGES, **(_SIZES | _IMAGE))),
    "clip-text": ("text encoder", _build("CLIPTextModel", TEXT, eos_token_id=2, **_SIZES)),
    # speech
    "wav2vec2": ("speech", _build("Wav2Vec2Model", AUDIO, **_WAVE)),
    "hubert": ("speech", _build("HubertModel", AUDIO, **_WAVE)),
    "whisper-encoder": ("speech", lambda: _whisper_encoder()),
    "ast": ("speech", _build("ASTModel", [{"input_values": _floats(2, 64, 32)}], max_length=64, num_mel_bins=32, **_SIZES)),
}  # fmt: skip


def _whisper_encoder() -> Made:
    config = transformers.WhisperConfig(
        d_model=64,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=128,
        max_source_positions=50,
    )
    torch.manual_seed(0)
    encoder = transformers.WhisperModel(config).encoder.eval()
    return encoder, [{"input_features": _floats(1, 80, 100)}]


class _Sequential(nn.Module):
    """A recurrent layer between two linear ones."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.before = nn.Linear(32, 32)
        self.recurrent = kind(32, 32, num_layers=2, batch_first=True)
        self.behind = nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        return self.behind(self.recurrent(self.before(x))[0])


class _UNet(nn.Module):
    """Two scales, with a skip."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 64, 3, 2, 1)
        self.up, self.join = nn.ConvTranspose2d(64, 32, 2, 2), nn.Conv2d(64, 32, 3, padding=1)
        self.head = nn.Conv2d(32, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        skip = self.stem(image).relu()
        return self.head(self.join(torch.cat([skip, self.up(self.down(skip).relu())], dim=1)).relu())


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.linear = nn.MultiheadAttention(64, 4, batch_first=True), nn.Linear(64, 64)

    def forward(self, query: Tensor, key: Tensor) -> dict[str, Tensor]:
        seen, weights = self.attention(query, key, key)
        return {"seen": self.linear(seen), "weights": weights}


class _Counter(nn.Module):
    """Changes a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(32, 32)
        self.register_buffer("mean", torch.zeros(32))

    def forward(self, x: Tensor) -> Tensor:
        self.mean.mul_(0.9).add_(x.mean(dim=0), alpha=0.1)
        return self.linear(x - self.mean)


class _Branching(nn.Module):
    """Chooses by a value."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) if x.sum() > 0 else x


def _conv3d() -> nn.Module:
    return nn.Sequential(nn.Conv3d(3, 8, 3), nn.Flatten(2), nn.Linear(216, 16))


def _plain(make: Callable[[], nn.Module], *samples: Sample) -> Callable[[], Made]:
    def made() -> Made:
        torch.manual_seed(0)
        return make().eval(), samples

    return made


def _lengths(name: str, *shapes: Sequence[int]) -> tuple[Sample, ...]:
    return tuple({name: _floats(*shape)} for shape in shapes)


_VECTORS = _lengths("x", (2, 32), (3, 32))
_STEPS = _lengths("x", (1, 5, 32), (1, 9, 32))

PLAIN: dict[str, tuple[str, Callable[[], Made]]] = {
    "mlp": ("plain", _plain(lambda: nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 10)), *_VECTORS)),
    "lenet": (
        "plain",
        _plain(
            lambda: nn.Sequential(
                nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                nn.Linear(256, 120), nn.ReLU(), nn.Linear(120, 10),
            ),
            *_lengths("image", (2, 1, 28, 28), (3, 1, 28, 28)),
        ),
    ),
    "transformer-encoder": (
        "plain",
        _plain(
            lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(64, 4, 128, batch_first=True), 2),
            *_lengths("src", (2, 7, 64), (2, 11, 64)),
        ),
    ),
    "attention": (
        "plain",
        _plain(_Attention, *({"key": _floats(2, key, 64), "query": _floats(2, query, 64)} for key, query in ((7, 5), (9, 6)))),
    ),
    "u-net": ("plain", _plain(_UNet, *_lengths("image", (1, 3, 16, 24), (1, 3, 32, 24)))),
    "conv1d": (
        "plain",
        _plain(
            lambda: nn.Sequential(nn.Conv1d(32, 64, 5, padding=2), nn.ReLU(), nn.Conv1d(64, 32, 3)),
            *_lengths("x", (2, 32, 20), (2, 32, 30)),
        ),
    ),
    "lstm": ("plain", _plain(lambda: _Sequential(nn.LSTM), *_STEPS)),
    "gru": ("plain", _plain(lambda: _Sequential(nn.GRU), *_STEPS)),
    "lstm-fixed-length": ("plain", _plain(lambda: _Sequential(nn.LSTM), *_lengths("x", (2, 6, 32)))),
    "weight-norm": (
        "plain",
        _plain(lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(32, 32)), nn.Linear(32, 8)), *_VECTORS),
    ),
    "conv3d": ("plain", _plain(_conv3d, *_lengths("x", (1, 3, 8, 8, 8)))),
    "state": ("plain", _plain(_Counter, *_VECTORS)),
    "control-flow": ("plain", _plain(_Branching, *_VECTORS)),
}  # fmt: skip

MODELS = {**TRANSFORMERS, **PLAIN}
