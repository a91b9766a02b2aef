import * as z from "zod/mini";
import { UsageError } from "../../core/index.js";
import type { RescalingMixture } from "../../io/index.js";
import { add, matmul, multiply, reshape, subtract, type Traced, transpose } from "../engine/ops.js";
import type { AdaptedPass, TracedAdaptation } from "../trace/adaptation.js";
import type { AdaptedModule, RoutedAdapterMethod } from "./contract.js";
import { checkRouter, drawn, gatesOf, type RouterSettings, routerOptions } from "./expertRouter.js";
import { inputsOf, ofInputs } from "./ia3.js";

const options = z.strictObject({ inputsOf, ...routerOptions });
type Options = z.output<typeof options>;

/** Every piece has the factors of its own outputs; those of inputs are one. */
const names = (module: string) => ({
  factors: (piece: number) => `${module}.mov_l.${piece}`,
  router: `${module}.router`,
});

/** Columns that are routed together: a head's, or all. @throws UsageError where the parts of a module have heads of several widths */
function widthOf(module: AdaptedModule, options: Options): number {
  if (ofInputs(module, options)) return module.cols;
  const widths = new Set(module.pieces.map(({ headWidth, rows }) => headWidth ?? rows.length));
  const [width, other] = widths;
  if (other === undefined) return width;
  throw new UsageError(
    `${module.name} has parts of ${[...widths].join(" and ")} columns, which one router cannot read`,
  );
}

/** Which rows of a module the factors of each of its parameters are for. */
function partsOf({ cols, pieces }: AdaptedModule, inputs: boolean): readonly (readonly number[])[] {
  return inputs ? [Array.from({ length: cols }, (_, c) => c)] : pieces.map(({ rows }) => rows);
}

/** x ∘ (1 + Σ sᵢ·(lᵢ − 1)) with s = softmax(router · x), run by run of `width` columns. @param factors [experts, columns] */
function rescaled(
  x: Traced,
  factors: Traced,
  router: Traced,
  width: number,
  settings: RouterSettings,
  pass: AdaptedPass,
): Traced {
  const { experts } = settings;
  const [rows, cols] = x.shape;
  const runs = cols / width;
  const gates = gatesOf(reshape(x, [rows * runs, width]), router, settings, pass);
  const less = subtract(factors, 1);
  if (runs === 1) return multiply(x, add(1, matmul(gates, less)));
  // A product for every run: [runs, rows, experts] · [runs, experts, width].
  const ofRuns = transpose(reshape(gates, [rows, runs, experts]), [1, 0, 2]);
  const mixed = matmul(ofRuns, transpose(reshape(less, [experts, runs, width]), [1, 0, 2]));
  return multiply(x, add(1, reshape(transpose(mixed, [1, 0, 2]), [rows, cols])));
}

/** Keys, values and what enters the last product of the MLP times a mixture of learnt vectors, at first ones. */
export const method: RoutedAdapterMethod<Options> = {
  id: "mov",
  title: "MoV",
  paper: "Zadouri et al. 2023, arXiv:2309.05444",
  options,

  parameters(module, options, random) {
    checkRouter(options);
    const { experts } = options;
    const own = names(module.name);
    const width = widthOf(module, options);
    const shared = { layer: "", role: "dense" as const };
    return [
      ...partsOf(module, ofInputs(module, options)).map(({ length }, p) => {
        const first = new Float32Array(experts * length).fill(1);
        return { name: own.factors(p), shape: [experts, length], ...shared, first };
      }),
      { name: own.router, shape: [experts, width], ...shared, first: drawn(experts * width, random) },
    ];
  },

  trace(module, piece, options): TracedAdaptation {
    const own = names(module.name);
    const width = widthOf(module, options);
    const inputs = ofInputs(module, options);
    const change = (x: Traced, pass: AdaptedPass) => {
      const { weights } = pass;
      return rescaled(x, weights[own.factors(inputs ? 0 : piece)], weights[own.router], width, options, pass);
    };
    return inputs ? { inputs: change } : { outputs: (y, _, pass) => change(y, pass), rescales: true };
  },

  adapter: (modules, values, options) => ({
    kind: "mov",
    modules: new Map(
      modules.map((module): [string, RescalingMixture] => {
        const { name, rows, cols } = module;
        const { experts, topK } = options;
        const inputs = ofInputs(module, options);
        const length = inputs ? cols : rows;
        const factors = new Float32Array(experts * length);
        for (const [p, places] of partsOf(module, inputs).entries()) {
          const part = values.get(names(name).factors(p))!;
          for (let e = 0; e < experts; e++) {
            for (const [i, place] of places.entries()) factors[e * length + place] = part[e * places.length + i];
          }
        }
        const router = Float32Array.from(values.get(names(name).router)!);
        const of = inputs ? ("inputs" as const) : ("outputs" as const);
        return [name, { factors, router, experts, of, width: widthOf(module, options), ...(topK && { topK }) }];
      }),
    ),
  }),

  values(module, adapter) {
    const mixture = adapter.kind === "mov" ? adapter.modules.get(module.name) : undefined;
    if (mixture === undefined) return undefined;
    const { experts, factors, router, of } = mixture;
    const own = names(module.name);
    const length = factors.length / experts;
    const parts = partsOf(module, of === "inputs").map((places, p) => {
      const part = Array.from({ length: experts }, (_, e) => places.map((place) => factors[e * length + place]));
      return [own.factors(p), Float32Array.from(part.flat())] as const;
    });
    return new Map<string, Float32Array>([...parts, [own.router, router]]);
  },
};
