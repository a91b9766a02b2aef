import * as z from "zod/mini";
import { UsageError } from "../../core/index.js";
import type { PairMixture } from "../../io/index.js";
import { linear } from "../engine/layers.js";
import { add, multiply, reshape } from "../engine/ops.js";
import type { TracedAdaptation } from "../trace/adaptation.js";
import type { AdaptedModule, RoutedAdapterMethod } from "./contract.js";
import { checkRouter, drawn, gatesOf, routerOptions } from "./expertRouter.js";

const options = z.strictObject({
  rank: z._default(z.int().check(z.gte(1), z.lte(4096)), 4).check(z.describe("of every pair")),
  alpha: z
    ._default(z.number().check(z.gt(0), z.lte(1e6)), 16)
    .check(z.describe("pairs are multiplied by alpha / rank")),
  ...routerOptions,
});

/** Every piece has its own rows of B, so that nothing is gathered. */
const names = (module: string) => ({
  a: `${module}.molora_A`,
  b: (piece: number) => `${module}.molora_B.${piece}`,
  router: `${module}.router`,
});

/** W·x + (alpha / rank)·Σ sᵢ·Bᵢ·Aᵢ·x with s = softmax(router · x), B zeros: at first nothing changes. */
export const method: RoutedAdapterMethod<z.output<typeof options>> = {
  id: "molora",
  title: "MoLoRA",
  paper: "Zadouri et al. 2023, arXiv:2309.05444",
  options,

  parameters({ name, cols, pieces }, options, random) {
    checkRouter(options);
    const { experts, rank } = options;
    const own = names(name);
    const shared = { layer: "", role: "dense" as const };
    return [
      { name: own.a, shape: [experts * rank, cols], ...shared, first: drawn(experts * rank * cols, random) },
      ...pieces.map(({ rows }, p) => {
        const shape = [rows.length, experts * rank];
        return { name: own.b(p), shape, ...shared, first: new Float32Array(rows.length * experts * rank) };
      }),
      { name: own.router, shape: [experts, cols], ...shared, first: drawn(experts * cols, random) },
    ];
  },

  trace({ name }, piece, options): TracedAdaptation {
    const { experts, rank, alpha } = options;
    const own = names(name);
    return {
      outputs(y, x, pass) {
        const { weights } = pass;
        const gates = reshape(gatesOf(x, weights[own.router], options, pass), [-1, experts, 1]);
        const between = multiply(reshape(linear(x, weights[own.a]), [-1, experts, rank]), gates);
        const added = linear(reshape(between, [-1, experts * rank]), weights[own.b(piece)]);
        return add(y, multiply(added, alpha / rank));
      },
    };
  },

  adapter: (modules, values, { experts, rank, alpha, topK }) => ({
    kind: "molora",
    modules: new Map(
      modules.map((module): [string, PairMixture] => {
        const { name, rows, cols } = module;
        const own = names(name);
        const b = new Float32Array(experts * rows * rank);
        eachB(module, experts, rank, (at, piece, i) => {
          b[at] = values.get(own.b(piece))![i];
        });
        const [a, router] = [own.a, own.router].map((part) => Float32Array.from(values.get(part)!));
        return [name, { a, b, router, experts, rank, rows, cols, scale: alpha / rank, ...(topK && { topK }) }];
      }),
    ),
  }),

  values(module, adapter) {
    const mixture = adapter.kind === "molora" ? adapter.modules.get(module.name) : undefined;
    if (mixture === undefined) return undefined;
    const { name, rows, cols } = module;
    if (mixture.rows !== rows || mixture.cols !== cols) {
      throw new UsageError(`${name}: pairs for ${mixture.rows} × ${mixture.cols}; the model has ${rows} × ${cols}`);
    }
    const { experts, rank, a, b, router } = mixture;
    const own = names(name);
    const found = new Map([
      [own.a, a],
      ...module.pieces.map(({ rows }, p) => [own.b(p), new Float32Array(rows.length * experts * rank)] as const),
      [own.router, router],
    ]);
    eachB(module, experts, rank, (at, piece, i) => {
      found.get(own.b(piece))![i] = b[at];
    });
    return found;
  },
};

/** Visits every number of B: where it lies in [experts, rows, rank], and in its piece [rows, experts · rank]. */
function eachB(
  { rows: all, pieces }: AdaptedModule,
  experts: number,
  rank: number,
  visit: (at: number, piece: number, inPiece: number) => void,
): void {
  for (const [p, { rows }] of pieces.entries()) {
    for (const [r, row] of rows.entries()) {
      for (let e = 0; e < experts; e++) {
        for (let k = 0; k < rank; k++) visit((e * all + row) * rank + k, p, r * experts * rank + e * rank + k);
      }
    }
  }
}
