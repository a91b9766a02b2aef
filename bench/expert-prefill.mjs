// Prefill through one layer of a mixture: grouped products over tokens sorted by expert, as models run it, against a loop over
// experts and a loop over tokens, with the same kernels.
//
//   node expert-prefill.mjs [--experts 32] [--per-token 4] [--hidden 1024] [--width 512] [--tokens 128] [--weights q8]
//                           [--threads 1] [--rounds 7]
//
// The three take turns in one process; every other round goes backwards. Times are CPU time, which other work on the machine
// disturbs less, and with one thread nearly what an idle machine takes. All three give the same sums; that is checked.
// Needs the built package (npm run build).

import { openBackend } from "../dist/kernels/index.js";
import { readOptions } from "../scripts/options.mjs";
import { median } from "./rounds.mjs";
import { cpuMs } from "./stopwatch.mjs";

const defaults = { experts: 32, "per-token": 4, hidden: 1024, width: 512, tokens: 128, threads: 1, rounds: 7 };
const { values } = readOptions({
  options: {
    ...Object.fromEntries(
      Object.entries(defaults).map(([name, value]) => [name, { type: "string", default: `${value}` }]),
    ),
    weights: { type: "string", default: "q8" },
  },
});
const [experts, perToken, hidden, width, tokens, threads, rounds] = Object.keys(defaults).map((name) =>
  Number(values[name]),
);

let state = 1;
/** Uniform of deviation about 1; what is multiplied does not matter to speed. */
const random = () => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return (state / 2 ** 32 - 0.5) * 3.46;
};
const source = (rows, cols) => ({
  name: "random",
  rows,
  cols,
  dtype: "F32",
  async read(_start, count, into) {
    const row = new Float32Array(into.buffer, into.byteOffset, count * cols);
    for (let i = 0; i < row.length; i++) row[i] = random() / Math.sqrt(cols);
  },
});

const backend = await openBackend("wasm", { threads });
const each = (make) => Array.from({ length: experts }, make);
const inner = await backend.loadExperts(
  each(() => [source(width, hidden), source(width, hidden)]),
  values.weights,
);
const outer = await backend.loadExperts(
  each(() => [source(hidden, width)]),
  values.weights,
);

const slots = tokens * perToken;
const x = backend.allocate(tokens, hidden);
const logits = backend.allocate(tokens, Math.ceil(experts / 4) * 4);
const [gateUp, given, sum] = [
  backend.allocate(slots, 2 * width),
  backend.allocate(slots, hidden),
  backend.allocate(tokens, hidden),
];
backend.write(x, Float32Array.from({ length: tokens * hidden }, random));
backend.write(logits, Float32Array.from({ length: tokens * logits.cols }, random));
const options = { experts, perRow: perToken, score: "softmax", normalise: true };
const zeros = new Float32Array(tokens * hidden);

/** Runs the experts of a routing over rows of x and adds what they give. */
function run(routing, from, into) {
  const count = routing.slotCount;
  const [gate, up] = [gateUp.columns(0, width), gateUp.columns(width, width)].map((part) => part.rowRange(0, count));
  backend.expertLinear(gateUp.rowRange(0, count), from, inner, routing, { from: "rows" });
  backend.gatedActivation(gate, gate, up, "silu");
  backend.expertLinear(given.rowRange(0, count), gate, outer, routing, { from: "slots" });
  backend.addExperts(into, given.rowRange(0, count), routing);
}

const ways = {
  grouped: async () => run(await backend.route(logits, options), x, sum),
  "by expert": async () => {
    const all = await backend.readRouting(await backend.route(logits, options));
    for (let expert = 0; expert < experts; expert++) {
      const own = [...all.experts.keys()].filter((slot) => all.experts[slot] === expert);
      if (own.length === 0) continue;
      const [rows, chosen] = [all.rows, all.experts].map((of) => Uint32Array.from(own, (slot) => of[slot]));
      const weights = Float32Array.from(own, (slot) => all.weights[slot]);
      run(backend.routeTo({ rows, experts: chosen, weights }, tokens), x, sum);
    }
  },
  "by token": async () => {
    for (let row = 0; row < tokens; row++) {
      const [one, into] = [x, sum].map((of) => of.rowRange(row, 1));
      run(await backend.route(logits.rowRange(row, 1), options), one, into);
    }
  },
};

const times = Object.fromEntries(Object.keys(ways).map((name) => [name, []]));
let expected;
for (let round = -1; round < rounds; round++) {
  const order = Object.keys(ways);
  for (const name of round % 2 ? order.reverse() : order) {
    backend.write(sum, zeros);
    await backend.read(sum.rowRange(0, 1));
    const before = cpuMs();
    await ways[name]();
    const result = await backend.read(sum);
    if (round >= 0) times[name].push(cpuMs() - before);
    expected ??= result;
    const far = result.reduce((most, v, i) => Math.max(most, Math.abs(v - expected[i])), 0);
    if (!(far < 1e-3)) throw new Error(`${name} differs by ${far}`);
  }
}
const ms = Object.fromEntries(Object.entries(times).map(([name, list]) => [name, median(list)]));
for (const [name, value] of Object.entries(ms)) {
  const ratios = times[name].map((time, round) => time / times.grouped[round]);
  console.log(`${name.padEnd(10)} ${value.toFixed(1).padStart(8)} ms CPU   ${median(ratios).toFixed(2)} × grouped`);
}
console.log(
  `${backend.info.description}; ${experts} experts of ${hidden} × ${width}, ${perToken} a token, ${tokens} tokens, ${values.weights}, medians of ${rounds}`,
);
backend[Symbol.dispose]();
