import * as z from "zod/mini";
import { UsageError } from "../../core/index.js";
import type { AdapterMethod } from "./contract.js";

const options = z.strictObject({
  rank: z._default(z.int().check(z.gte(1), z.lte(4096)), 8).check(z.describe("of the pair")),
  alpha: z
    ._default(z.number().check(z.gt(0), z.lte(1e6)), 16)
    .check(z.describe("the pair is multiplied by alpha / rank")),
});

const names = (module: string) => ({ a: `${module}.lora_A.weight`, b: `${module}.lora_B.weight` });

/** W + (alpha / rank)·B·A, A [rank, cols] as Kaiming draws it, B [rows, rank] zeros: at first nothing changes. */
export const method: AdapterMethod<z.output<typeof options>> = {
  id: "lora",
  title: "LoRA",
  paper: "Hu et al. 2021, arXiv:2106.09685",
  options,

  parameters({ name, rows, cols }, { rank }, random) {
    const { a, b } = names(name);
    const bound = 1 / Math.sqrt(cols);
    const first = Float32Array.from({ length: rank * cols }, () => bound * (2 * random.uniform() - 1));
    const shared = { layer: "", role: "dense" as const };
    return [
      { name: a, shape: [rank, cols], ...shared, first },
      { name: b, shape: [rows, rank], ...shared, first: new Float32Array(rows * rank) },
    ];
  },

  effective({ module: { name, cols }, rows, weight, mask, values, options: { rank, alpha } }, out) {
    const [a, b] = [values.get(names(name).a)!, values.get(names(name).b)!];
    const scale = alpha / rank;
    const line = new Float64Array(cols);
    for (const [r, row] of rows.entries()) {
      line.fill(0);
      for (let k = 0; k < rank; k++) {
        const factor = b[row * rank + k];
        if (factor !== 0) for (let c = 0; c < cols; c++) line[c] += factor * a[k * cols + c];
      }
      for (let c = 0, i = r * cols; c < cols; c++, i++) {
        out[i] = mask?.[i] === 0 ? weight[i] : weight[i] + scale * line[c];
      }
    }
  },

  // dL/dA = s·Bᵀ·G and dL/dB = s·G·Aᵀ, G where the mask lets the pair through.
  pullBack({ module: { name, cols }, rows, mask, values, options: { rank, alpha } }, outer, gradients) {
    const [a, b] = [values.get(names(name).a)!, values.get(names(name).b)!];
    const [da, db] = [gradients.get(names(name).a)!, gradients.get(names(name).b)!];
    const scale = alpha / rank;
    const line = new Float64Array(cols);
    for (const [r, row] of rows.entries()) {
      for (let c = 0, i = r * cols; c < cols; c++, i++) line[c] = mask?.[i] === 0 ? 0 : scale * outer[i];
      for (let k = 0; k < rank; k++) {
        const factor = b[row * rank + k];
        let dot = 0;
        for (let c = 0, j = k * cols; c < cols; c++, j++) {
          dot += line[c] * a[j];
          da[j] += factor * line[c];
        }
        db[row * rank + k] += dot;
      }
    }
  },

  adapter: (modules, values, { rank, alpha }) => ({
    kind: "lora",
    modules: new Map(
      modules.map(({ name, rows, cols }) => {
        const [a, b] = [values.get(names(name).a)!, values.get(names(name).b)!].map((v) => Float32Array.from(v));
        return [name, { a, b, rank, rows, cols, scale: alpha / rank }];
      }),
    ),
  }),

  values({ name, rows, cols }, adapter) {
    const pair = adapter.kind === "lora" ? adapter.modules.get(name) : undefined;
    if (pair === undefined) return undefined;
    if (pair.rows !== rows || pair.cols !== cols) {
      throw new UsageError(`${name}: a pair for ${pair.rows} × ${pair.cols}; the model has ${rows} × ${cols}`);
    }
    return new Map([
      [names(name).a, pair.a],
      [names(name).b, pair.b],
    ]);
  },
};
