"""Times cuBLAS, tinygemm's products of 4-bit codes and the published TEAL kernel on matrix-vector products, beside matvec.mjs.

    python3 peers.py [path of kernels/sparse_gemv.py from github.com/FasterDecoding/TEAL] [result.json]

Each time is the median over rounds of one CUDA-graph replay of `products` products, divided by their number; matrices are
rotated so that none is in the L2 cache when its turn comes.
"""

import importlib.util
import json
import statistics
import sys

import torch

SHAPES = [(14336, 4096), (4096, 14336), (22016, 4096), (4096, 11008), (12288, 4096), (4096, 4096)]  # rows (outputs) x columns (inputs)
SPARSITIES = [0.0, 0.4, 0.5, 0.65, 0.8]
ROTATED_BYTES = 400e6
PRODUCTS = 40
ROUNDS = 15


def microseconds(run_all):
    """Time of one product inside a graph that holds PRODUCTS of them."""
    run_all()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run_all()
    graph.replay()
    torch.cuda.synchronize()
    times = []
    for _ in range(ROUNDS):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) * 1000 / PRODUCTS)
    return statistics.median(times)


def load(path):
    spec = importlib.util.spec_from_file_location("teal", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main():
    teal = load(sys.argv[1]) if len(sys.argv) > 1 else None
    results = []

    def report(name, rows, cols, sparsity, us, weight_bytes=2):
        moved = rows * cols * weight_bytes * (1 - sparsity)
        results.append({"name": name, "rows": rows, "cols": cols, "sparsity": sparsity, "us": us})
        print(f"{name} {rows}x{cols} {sparsity:.0%}: {us:.2f} us, {moved / us / 1e3:.0f} GB/s of weights", flush=True)

    torch.manual_seed(0)
    for rows, cols in SHAPES:
        count = max(2, int(ROTATED_BYTES / (rows * cols * 2)) + 1)
        x = torch.randn(cols, device="cuda", dtype=torch.float16)
        weights = [torch.randn(rows, cols, device="cuda", dtype=torch.float16) for _ in range(count)]
        out = torch.empty(rows, device="cuda", dtype=torch.float16)
        report("cuBLAS f16", rows, cols, 0.0, microseconds(
            lambda: [torch.mv(weights[i % count], x, out=out) for i in range(PRODUCTS)]))
        # Codes in groups of 32 as ours, in the best of its tiles; and in the larger groups that it is mostly used with.
        codes = torch.randint(0, 256, (rows, cols // 2), device="cuda", dtype=torch.uint8)
        small = x.to(torch.bfloat16)[None]
        count4 = max(2, int(ROTATED_BYTES / (rows * cols / 2)) + 1)
        for group in [32, 128]:
            scales = torch.full((cols // group, rows, 2), 0.01, device="cuda", dtype=torch.bfloat16)
            times = {}
            for tiles in [2, 4, 8]:
                packed = [torch.ops.aten._convert_weight_to_int4pack(codes, tiles) for _ in range(count4)]
                times[tiles] = microseconds(
                    lambda: [torch.ops.aten._weight_int4pack_mm(small, packed[i % count4], group, scales) for i in range(PRODUCTS)])
                del packed
            best = min(times, key=times.get)
            report(f"tinygemm int4, groups of {group}, {best} inner tiles", rows, cols, 0.0, times[best], 0.5)
        if teal is None:
            continue
        # Its weights are column-major: shape [rows, cols], stride(1) = rows.
        weights = [w.t().contiguous().t() for w in weights]
        ordered = x.abs().float().sort().values
        batch = x.view(1, 1, -1)
        for sparsity in SPARSITIES:
            threshold = float(ordered[int(sparsity * cols) - 1]) if sparsity > 0 else -1.0
            bin_ = int(sparsity * 100)
            run = lambda i: teal.splitk_sparse_gemv(batch, weights[i % count], threshold, bin_)
            result = run(0).view(-1).float()
            exact = torch.where(x.abs().float() > threshold, x, 0).double() @ weights[0].double().t()
            error = float((result - exact).norm() / exact.norm())
            assert error < 2e-2, error
            report("TEAL", rows, cols, sparsity, microseconds(lambda: [run(i) for i in range(PRODUCTS)]))
    if len(sys.argv) > 2:
        with open(sys.argv[2], "w") as file:
            json.dump({"device": torch.cuda.get_device_name(), "torch": torch.__version__, "results": results}, file)


main()
