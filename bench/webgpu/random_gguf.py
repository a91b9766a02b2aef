"""Writes random weights of Llama-2-7B shape as GGUF, so that llama.cpp has the shape that decode.mjs measures.

    python3 random_gguf.py DIRECTORY [--types BF16,Q8_0,Q4_0] [--layers 32]

All matrices of a type hold the same random blocks again and again; norms are ones; the vocabulary is made up.
"""

import argparse
import os
import random
import struct

parser = argparse.ArgumentParser()
parser.add_argument("directory")
parser.add_argument("--types", default="BF16,Q8_0,Q4_0")
for name, default in [("layers", 32), ("hidden", 4096), ("ffn", 11008)]:
    parser.add_argument(f"--{name}", type=int, default=default)
a = parser.parse_args()
VOCAB, HEAD, ALIGNMENT = 32000, 128, 32
random.seed(1)

# ggml's number of a type, general.file_type, weights and bytes of a block.
TYPES = {"F32": (0, 0, 1, 4), "F16": (1, 1, 1, 2), "BF16": (30, 32, 1, 2), "Q8_0": (8, 7, 32, 34), "Q4_0": (2, 2, 32, 18)}


def random_blocks(kind, count):
    """So many blocks: weights of about the size 1/64."""
    _, _, weights, size = TYPES[kind]
    if weights == 1:
        floats = (random.gauss(0, 1 / 64) for _ in range(count))
        # The upper half of an f32 is a bf16.
        return b"".join(struct.pack("<e", f) if kind == "F16" else struct.pack("<f", f)[2:] for f in floats)
    scale = struct.pack("<e", 1 / 64 / (74 if kind == "Q8_0" else 4.6))
    return b"".join(scale + random.randbytes(size - 2) for _ in range(count))


def text(value):
    value = value.encode()
    return struct.pack("<Q", len(value)) + value


def pair(key, kind, value):
    return text(key) + struct.pack("<I", kind) + value


def number(key, value):
    return pair(key, 4, struct.pack("<I", value))


def array(key, kind, values):
    return pair(key, 9, struct.pack("<IQ", kind, len(values)) + b"".join(values))


def metadata(kind):
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)]
    tokens += [f"t{i}" for i in range(len(tokens), VOCAB)]
    kinds = [2, 3, 3] + [6] * 256 + [1] * (VOCAB - 259)
    return [
        pair("general.architecture", 8, text("llama")),
        pair("general.name", 8, text(f"random {kind}")),
        number("general.file_type", TYPES[kind][1]),
        number("general.alignment", ALIGNMENT),
        number("llama.context_length", 4096),
        number("llama.embedding_length", a.hidden),
        number("llama.block_count", a.layers),
        number("llama.feed_forward_length", a.ffn),
        number("llama.attention.head_count", a.hidden // HEAD),
        number("llama.attention.head_count_kv", a.hidden // HEAD),
        number("llama.rope.dimension_count", HEAD),
        number("llama.vocab_size", VOCAB),
        pair("llama.rope.freq_base", 6, struct.pack("<f", 10000)),
        pair("llama.attention.layer_norm_rms_epsilon", 6, struct.pack("<f", 1e-5)),
        pair("tokenizer.ggml.model", 8, text("llama")),
        array("tokenizer.ggml.tokens", 8, [text(token) for token in tokens]),
        array("tokenizer.ggml.scores", 6, [struct.pack("<f", -i) for i in range(VOCAB)]),
        array("tokenizer.ggml.token_type", 5, [struct.pack("<i", k) for k in kinds]),
        number("tokenizer.ggml.bos_token_id", 1),
        number("tokenizer.ggml.eos_token_id", 2),
        number("tokenizer.ggml.unknown_token_id", 0),
    ]


def tensors(kind):
    """(name, rows or 0 for a vector, columns, type)"""
    yield "token_embd.weight", VOCAB, a.hidden, kind
    for layer in range(a.layers):
        name = f"blk.{layer}."
        for norm in ["attn_norm", "ffn_norm"]:
            yield f"{name}{norm}.weight", 0, a.hidden, "F32"
        for part in ["attn_q", "attn_k", "attn_v", "attn_output"]:
            yield f"{name}{part}.weight", a.hidden, a.hidden, kind
        for part in ["ffn_gate", "ffn_up"]:
            yield f"{name}{part}.weight", a.ffn, a.hidden, kind
        yield f"{name}ffn_down.weight", a.hidden, a.ffn, kind
    yield "output_norm.weight", 0, a.hidden, "F32"
    yield "output.weight", VOCAB, a.hidden, kind


def write(kind, path):
    pairs, infos, sizes, offset = metadata(kind), [], [], 0
    for name, rows, cols, type_ in tensors(kind):
        number_, _, weights, size = TYPES[type_]
        shape = [cols, rows] if rows else [cols]
        byte_length = max(rows, 1) * cols // weights * size
        infos.append(text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape))
        infos[-1] += struct.pack("<IQ", number_, offset)
        sizes.append((rows, byte_length))
        offset += -(-byte_length // ALIGNMENT) * ALIGNMENT
    some = random_blocks(kind, (1 << 20) // TYPES[kind][2])
    one = struct.pack("<f", 1)
    with open(path, "wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(pairs)) + b"".join(pairs) + b"".join(infos))
        file.write(b"\0" * (-file.tell() % ALIGNMENT))
        for rows, byte_length in sizes:
            source = some if rows else one * (byte_length // 4)
            for written in range(0, byte_length, len(source)):
                file.write(source[: byte_length - written])
            file.write(b"\0" * (-byte_length % ALIGNMENT))


os.makedirs(a.directory, exist_ok=True)
for kind in a.types.split(","):
    path = os.path.join(a.directory, f"random-{kind}.gguf")
    write(kind, path)
    print(path, os.path.getsize(path))
