"""Decodes and prefills a random model of Llama-2-7B shape with PyTorch, to stand beside decode.mjs.

    python3 peers_decode.py [--int4] [--layers 32] [--prompt 128] [--tokens 64] [--rounds 5] [result.json]

bf16, or with --int4 products by tinygemm of 4-bit codes in groups of 32 in all blocks and the head (without a prefill); batch
1, greedy. Blocks are compiled (one compilation for all layers), and a whole token is one CUDA graph that is
replayed: the processor does nearly nothing. The cache is a fixed buffer; attention is PyTorch's fused kernel over it, with a
mask for what is not there yet. Prefill is one CUDA graph over the prompt. Medians over rounds of tokens/s by wall clock, each
token waited for; the time of the GPU alone by events.
"""

import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F

parser = argparse.ArgumentParser()
for name, default in [("layers", 32), ("hidden", 4096), ("ffn", 11008), ("prompt", 128), ("tokens", 64), ("rounds", 5)]:
    parser.add_argument(f"--{name}", type=int, default=default)
parser.add_argument("--prefill", type=int, default=512)
parser.add_argument("--int4", action="store_true")
parser.add_argument("result", nargs="?")
a = parser.parse_args()
HEAD, VOCAB = 128, 32000
heads, capacity = a.hidden // HEAD, max(a.prefill, a.prompt + a.tokens + 8)
torch.manual_seed(0)
device, dtype = "cuda", torch.bfloat16


def dense(rows, cols):
    return (torch.randn(rows, cols, device=device, dtype=dtype) / cols**0.5).contiguous()


GROUP, INNER_TILES = 32, 2


def matrix(rows, cols):
    """What `product` multiplies with."""
    if not a.int4:
        return (dense(rows, cols),)
    codes = torch.randint(0, 256, (rows, cols // 2), device=device, dtype=torch.uint8)
    scales = torch.zeros(cols // GROUP, rows, 2, device=device, dtype=dtype)
    scales[..., 0] = (12 / cols) ** 0.5 / 16
    return torch.ops.aten._convert_weight_to_int4pack(codes, INNER_TILES), scales


def product(x, w):
    if len(w) == 1:
        return F.linear(x, w[0])
    return torch.ops.aten._weight_int4pack_mm(x, w[0], GROUP, w[1])


def rotate(x, cos, sin):
    first, second = x.float().chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x.dtype)


def norm(x, weight):
    return F.rms_norm(x, (x.shape[-1],), weight, 1e-5)


def block(x, w, keys, values, positions, cos, sin, mask):
    tokens = x.shape[0]
    q, k, v = product(norm(x, w["n1"]), w["qkv"]).view(tokens, 3, heads, HEAD).unbind(1)
    q, k = rotate(q, cos, sin), rotate(k, cos, sin)
    keys.index_copy_(0, positions, k)
    values.index_copy_(0, positions, v)
    attended = F.scaled_dot_product_attention(
        q.transpose(0, 1)[None], keys.transpose(0, 1)[None], values.transpose(0, 1)[None], attn_mask=mask
    )
    x = x + product(attended[0].transpose(0, 1).reshape(tokens, -1), w["o"])
    gate, up = product(norm(x, w["n2"]), w["gate_up"]).chunk(2, -1)
    return x + product(F.silu(gate) * up, w["down"])


weights = [
    {
        "n1": torch.ones(a.hidden, device=device, dtype=dtype),
        "n2": torch.ones(a.hidden, device=device, dtype=dtype),
        "qkv": matrix(3 * a.hidden, a.hidden),
        "o": matrix(a.hidden, a.hidden),
        "gate_up": matrix(2 * a.ffn, a.hidden),
        "down": matrix(a.hidden, a.ffn),
    }
    for _ in range(a.layers)
]
embedding, head = dense(VOCAB, a.hidden), matrix(VOCAB, a.hidden)
last = torch.ones(a.hidden, device=device, dtype=dtype)
caches = [[torch.zeros(capacity, heads, HEAD, device=device, dtype=dtype) for _ in range(2)] for _ in range(a.layers)]
frequencies = 1e4 ** -(torch.arange(0, HEAD, 2, device=device) / HEAD)
angles = torch.arange(capacity, device=device)[:, None] * frequencies
all_cos, all_sin = angles.cos()[:, None], angles.sin()[:, None]
slots = torch.arange(capacity, device=device)
compiled = torch.compile(block)


def step(ids, positions):
    x = embedding[ids]
    cos, sin = all_cos[positions], all_sin[positions]
    mask = (slots <= positions[:, None])[None, None]
    for w, (keys, values) in zip(weights, caches):
        x = compiled(x, w, keys, values, positions, cos, sin, mask)
    return product(norm(x[-1:], last), head).argmax(-1)


def graphed(count):
    ids = torch.randint(0, VOCAB, (count,), device=device)
    positions = torch.arange(count, device=device)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side), torch.no_grad():
        for _ in range(3):
            step(ids, positions)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        out = step(ids, positions)
    return graph, ids, positions, out


def gpu_ms(graph, times):
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(times):
        graph.replay()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / times


with torch.no_grad():
    graph, ids, positions, out = graphed(1)
    rates, gpu = [], []
    for round in range(-1, a.rounds):
        torch.cuda.synchronize()
        began, processor = time.perf_counter(), time.process_time()
        for t in range(a.tokens):
            positions.fill_(a.prompt + t)
            graph.replay()
            ids.copy_(out)
            out.item()
        seconds, cpu = time.perf_counter() - began, time.process_time() - processor
        if round >= 0:
            rates.append(a.tokens / seconds)
            gpu.append(gpu_ms(graph, 16))
    result = {
        "decode": statistics.median(rates),
        "decodeRange": [min(rates), max(rates)],
        "gpuMsPerToken": statistics.median(gpu),
        "cpuMsPerToken": 1000 * cpu / a.tokens,
    }
    if not a.int4:
        graph, *_ = graphed(a.prefill)
        ms = [gpu_ms(graph, 4) for _ in range(a.rounds)]
        result["prefill"] = 1000 * a.prefill / statistics.median(ms)
print(json.dumps(result))
if a.result:
    with open(a.result, "w") as file:
        json.dump(result, file)
