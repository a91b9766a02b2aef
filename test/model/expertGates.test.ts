import { describe, expect, test } from "vitest";
import { Random } from "../../src/core/index.js";
import type { PairMixture, RescalingMixture } from "../../src/io/index.js";
import type { Backend } from "../../src/kernels/index.js";
import { addPairs, pairScratch } from "../../src/model/adapterPairs.js";
import { ExpertGates } from "../../src/model/expertGates.js";
import { loadFactorMixture, rescaleBy, rescalingScratch } from "../../src/model/factorMixture.js";
import { loadPairs } from "../../src/model/loadPairs.js";
import { relativeDifference } from "../compress/support.js";
import { backendsNotHere, backendsUnderTest } from "../contract/backendsUnderTest.js";

const draw = (random: Random, length: number, by = 1) => Float32Array.from({ length }, () => by * random.normal());

/** Softmax in f64, of which the k largest stay. */
function gatesOf(logits: readonly number[], topK = logits.length): number[] {
  const most = Math.max(...logits);
  const powers = logits.map((z) => Math.exp(z - most));
  const sum = powers.reduce((a, b) => a + b, 0);
  const order = logits.map((_, e) => e).sort((a, b) => logits[b] - logits[a] || a - b);
  return powers.map((p, e) => (order.indexOf(e) < topK ? p / sum : 0));
}

/** The middle of something larger that holds `values`, as buffers of a block lie side by side. */
function within(backend: Backend, rows: number, cols: number, values: Float32Array) {
  const whole = backend.allocate(rows, cols + 8);
  const wide = new Float32Array(rows * (cols + 8)).fill(7);
  for (let r = 0; r < rows; r++) wide.set(values.subarray(r * cols, (r + 1) * cols), r * (cols + 8) + 4);
  backend.write(whole, wide);
  return whole.columns(4, cols);
}

/** W·x + scale · Σ sᵢ·bᵢ·aᵢ·x without the W, in f64. */
function pairsOf(x: Float32Array, { a, b, router, experts, rank, rows, cols, scale, topK }: PairMixture): number[] {
  const dot = (m: Float32Array, row: number, v: ArrayLike<number>) => {
    let sum = 0;
    for (let c = 0; c < v.length; c++) sum += m[row * v.length + c] * v[c];
    return sum;
  };
  const out: number[] = [];
  for (let t = 0; t < x.length / cols; t++) {
    const own = x.subarray(t * cols, (t + 1) * cols);
    const gates = gatesOf(
      Array.from({ length: experts }, (_, e) => dot(router, e, own)),
      topK,
    );
    const inner = gates.map((_, e) => Array.from({ length: rank }, (_, k) => dot(a, e * rank + k, own)));
    for (let r = 0; r < rows; r++)
      out.push(gates.reduce((sum, gate, e) => sum + scale * gate * dot(b, e * rows + r, inner[e]), 0));
  }
  return out;
}

/** x ∘ (1 + Σ sᵢ·(lᵢ − 1)) run by run, in f64. */
function rescaledOf(x: Float32Array, { factors, router, experts, width, topK }: RescalingMixture): number[] {
  const cols = factors.length / experts;
  return Array.from(x, (value, i) => {
    const c = i % cols;
    const first = i - (c % width);
    const logits = Array.from({ length: experts }, (_, e) => {
      let sum = 0;
      for (let k = 0; k < width; k++) sum += router[e * width + k] * x[first + k];
      return sum;
    });
    return value * gatesOf(logits, topK).reduce((by, gate, e) => by + gate * (factors[e * cols + c] - 1), 1);
  });
}

/** One row, a few, and more than one call of attention has; software compiles the kernels of each slowly. */
const cases: [rows: number, experts: number, topK: number | undefined][] = [
  [1, 4, undefined],
  [3, 1, undefined],
  [130, 10, undefined],
  [70, 5, 2],
];

for (const { name, reason } of backendsNotHere) test.skip(`backend ${name}: ${reason}`, () => {});

describe.each(
  backendsUnderTest.filter(({ name }) => ["reference", "wasm baseline, 2 threads", "webgpu"].includes(name)),
)("$name", ({ name, create }) => {
  test.each(cases.slice(name === "webgpu" ? 2 : 0))(
    "%i rows, %i experts, %s count: pairs and factors are those of f64",
    async (rows, experts, topK) => {
      using backend = await create();
      using gates = ExpertGates.load(backend, experts, topK);
      using region = backend.openRegion({ weightBytes: 1 << 20 });
      const random = new Random(rows);
      const [cols, out, rank] = [16, 12, 3];
      const made = (): PairMixture => ({
        a: draw(random, experts * rank * cols),
        b: draw(random, experts * out * rank),
        router: draw(random, experts * cols),
        ...{ experts, rank, rows: out, cols, scale: 1.5, topK },
      });
      const mixtures = [made(), made()];
      const placed = mixtures.map((pairs, i) => ({ kind: "molora" as const, pairs, rowStart: i * out, name: `${i}` }));
      const pairs = await loadPairs(region, gates, placed);
      const x = draw(random, rows * cols);
      const y = draw(random, rows * 2 * out);
      const [xs, ys] = [within(backend, rows, cols, x), within(backend, rows, 2 * out, y)];
      addPairs(backend, ys, xs, pairs, backend.allocate(rows, pairScratch(pairs)));
      const sums = mixtures.map((mixture) => pairsOf(x, mixture));
      const expected = y.map((value, i) => {
        const [row, c] = [Math.floor(i / (2 * out)), i % (2 * out)];
        return value + sums[Math.floor(c / out)][row * out + (c % out)];
      });
      expect(relativeDifference(await backend.read(ys), expected)).toBeLessThan(1e-5);
      for (const [width, of] of [
        [4, "outputs"],
        [cols, "inputs"],
      ] as const) {
        for (const centre of [1, 0]) {
          // Around 0 some factors are negative.
          const factors = draw(random, experts * cols, centre === 1 ? 0.1 : 1).map((l) => centre + l);
          const rescaling: RescalingMixture = {
            factors,
            router: draw(random, experts * width),
            experts,
            width,
            of,
            topK,
          };
          const mixture = await loadFactorMixture(region, gates, rescaling, 0, "mixture");
          expect(mixture.negative === undefined).toBe(centre === 1);
          const changed = within(backend, rows, cols, x);
          rescaleBy(backend, changed, mixture, backend.allocate(rows, rescalingScratch(mixture)));
          expect(relativeDifference(await backend.read(changed), rescaledOf(x, rescaling))).toBeLessThan(1e-5);
        }
      }
    },
  );
});
