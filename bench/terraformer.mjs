// Terraformer's MLP beside the dense one: milliseconds of a decoded token for one block, in turn in one process, on one thread.
//   npm run build && node bench/terraformer.mjs [--widths 512,2048] [--block 32] [--rank 64] [--repeats 200]
// Random weights in bf16, units 4 × the width, ReLU in both; the dense one reads all rows of `up` and, its ReLU's zeros left alone, all
// columns of `down`; "dense, zeros skipped" leaves out columns of zeros. `MB` are the weights that were read for a token.
import { Random } from "../dist/core/index.js";
import { openBackend } from "../dist/kernels/index.js";
import { ControlledMlp } from "../dist/model/controlledMlp.js";
import { denseSource } from "../dist/model/denseSource.js";
import { readOptions } from "../scripts/options.mjs";

const { values } = readOptions({
  options: {
    widths: { type: "string", default: "512,2048" },
    block: { type: "string", default: "32" },
    rank: { type: "string", default: "64" },
    repeats: { type: "string", default: "200" },
    json: { type: "boolean", default: false },
  },
});
const [block, rank, repeats] = [values.block, values.rank, values.repeats].map(Number);
const random = new Random(1);
const numbers = (length, inputs) => Float32Array.from({ length }, () => random.normal() / Math.sqrt(inputs));
const median = (times) => times.toSorted((a, b) => a - b)[Math.floor(times.length / 2)];

async function measure(hiddenSize) {
  const backend = await openBackend("wasm", { threads: 1 });
  try {
    return await measureOn(backend, hiddenSize);
  } finally {
    backend[Symbol.dispose]();
  }
}

async function measureOn(backend, hiddenSize) {
  const units = 4 * hiddenSize;
  const weights = {
    ...{ hiddenSize, units, block, rank },
    up: numbers(units * hiddenSize, hiddenSize),
    down: numbers(units * hiddenSize, units),
    downBias: numbers(hiddenSize, hiddenSize),
    controllerDown: numbers(rank * hiddenSize, hiddenSize),
    controllerUp: numbers(units * rank, rank),
    controllerBias: numbers(units, units),
  };
  const mlp = await ControlledMlp.load(backend, weights);
  const region = backend.openRegion({ weightBytes: 4 * units * hiddenSize });
  const load = (name, rows, cols, of) => region.loadMatrix([denseSource(name, rows, cols, of)], "bf16", {});
  const up = await load("up", units, hiddenSize, weights.up);
  const down = await load("down", hiddenSize, units, weights.down);
  const bias = region.loadVector(weights.downBias);
  const [x, hidden, out] = [
    backend.allocate(1, hiddenSize),
    backend.allocate(1, units),
    backend.allocate(1, hiddenSize),
  ];
  const dense = (options) => () => {
    backend.linear(hidden, x, up);
    backend.map(hidden, hidden, "relu");
    backend.linear(out, hidden, down, { bias, ...options });
  };
  const ways = {
    dense: dense({}),
    "dense, zeros skipped": dense({ thresholds: [0] }),
    terraformer: () => mlp.run(out, x),
  };
  const times = Object.fromEntries(Object.keys(ways).map((name) => [name, []]));
  const bytes = {};
  for (let repeat = 0; repeat < repeats; repeat++) {
    backend.write(x, numbers(hiddenSize, 1));
    await backend.flush();
    for (const [name, run] of Object.entries(ways)) {
      backend.takeCounters();
      const begin = performance.now();
      await run();
      await backend.read(out);
      times[name].push(performance.now() - begin);
      bytes[name] = backend.takeCounters().weightBytesRead;
    }
  }
  const whole = median(times.dense);
  return Object.keys(ways).map((name) => ({
    ...{ hiddenSize, units, name, ms: median(times[name]), MB: bytes[name] / 1e6 },
    "speed-up": whole / median(times[name]),
  }));
}

const rows = [];
for (const width of values.widths.split(",").map(Number)) rows.push(...(await measure(width)));
if (values.json) console.log(JSON.stringify(rows, undefined, 1));
else console.table(rows);
