"""Writes a GGUF file of random float16 weights in the shape of a Llama of 1.1 billion parameters, with SmolLM2's tokenizer.

    python benchmarks/llm_shape.py OUTPUT.gguf

The shape is TinyLlama's: 22 layers, width 2048, 32 heads of 64 of which 4 for keys and values, 5632 in the middle; embedding and
head are one table of 49,152 tokens (TinyLlama has 32,000, and two). What it computes is noise: for speed alone (llm.py --gguf).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from gguf import GGUFReader, GGUFValueType, GGUFWriter
from language_model import packaged_model

LAYERS, WIDTH, MIDDLE, HEADS, KV_HEADS, SIZE = 22, 2048, 5632, 32, 4, 64


def main() -> None:
    """Write the file."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    source = GGUFReader(packaged_model())
    writer = GGUFWriter(Path(sys.argv[1]), "llama")
    for name, field in source.fields.items():
        if name.startswith("tokenizer."):
            kind, *of = field.types
            writer.add_key_value(name, field.contents(), kind, of[0] if kind == GGUFValueType.ARRAY else None)
    vocabulary = len(source.fields["tokenizer.ggml.tokens"].contents())
    writer.add_vocab_size(vocabulary)
    writer.add_block_count(LAYERS)
    writer.add_context_length(2048)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(MIDDLE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(SIZE)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    shapes = {"token_embd.weight": (vocabulary, WIDTH), "output_norm.weight": (WIDTH,)}
    for layer in range(LAYERS):
        block = {
            "attn_norm": (WIDTH,),
            "attn_q": (HEADS * SIZE, WIDTH),
            "attn_k": (KV_HEADS * SIZE, WIDTH),
            "attn_v": (KV_HEADS * SIZE, WIDTH),
            "attn_output": (WIDTH, HEADS * SIZE),
            "ffn_norm": (WIDTH,),
            "ffn_gate": (MIDDLE, WIDTH),
            "ffn_up": (MIDDLE, WIDTH),
            "ffn_down": (WIDTH, MIDDLE),
        }
        shapes |= {f"blk.{layer}.{name}.weight": shape for name, shape in block.items()}
    for name, shape in shapes.items():
        size = int(np.prod(shape))
        writer.add_tensor_info(
            name, shape, np.dtype(np.float16 if len(shape) == 2 else np.float32), size * (2 if len(shape) == 2 else 4)
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    random = np.random.default_rng(0)
    for shape in shapes.values():
        if len(shape) == 1:
            writer.write_tensor_data(np.ones(shape, np.float32))
        else:
            writer.write_tensor_data((0.02 * random.standard_normal(shape, np.float32)).astype(np.float16))
    writer.close()


if __name__ == "__main__":
    main()
