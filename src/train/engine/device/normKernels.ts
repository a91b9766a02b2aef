import type { NormSpec } from "../../../arch/index.js";
import { type Kernel, kernel, read, readWrite } from "../../../kernels/internal.js";
import { begin, rowOfGrid, rowThreads, shares, total } from "./rowKernels.js";
import { addTerms } from "./sums.js";

type SumParams = "width" | "rows" | "rowsPerPart" | "runs" | "stride" | "first";

/** A norm over each of `runs` runs of `width` columns from column `first` on, in rows `stride` apart; ⟨·⟩ is a mean over a run. */
interface NormKernels {
  /** f32 that the forward pass keeps of a run, and vectors of weights whose gradients are made. */
  statistics: number;
  /** x̂ = (x − mean)·inverse; normed = x̂ ∘ (plus + weight) + bias. One workgroup for each run. */
  forward: Kernel<
    "count" | "width" | "runs" | "stride" | "first" | "weight" | "plus" | "epsilon",
    "normed" | "statistics" | "x" | "weights"
  >;
  /** gradient (+)= dL/dx = inverse·(g − ⟨g⟩ − x̂·⟨g ∘ x̂⟩), where g = (plus + weight) ∘ dy; without ⟨g⟩ where there is no mean. */
  back: Kernel<
    "count" | "width" | "runs" | "stride" | "first" | "toStride" | "toFirst" | "weight" | "plus" | "accumulate",
    "gradient" | "outer" | "x" | "statistics" | "weights"
  >;
  /** Σ over a part of the runs of dy ∘ x̂, and of dy where there is a bias: f32 [parts, vectors, width]. */
  sums: Kernel<SumParams, "parts" | "outer" | "x" | "statistics">;
}

const each = (body: string) => /* wgsl */ `for (var i = t; i < p.width; i += ${rowThreads}u) { ${body} }`;

/** @param centred whether the mean of a run is taken away and a bias, which lies behind the weight, is added */
function kernels(name: string, centred: boolean): NormKernels {
  const statistics = centred ? 2 : 1;
  /** Where the run of a workgroup begins among x, and its statistics. */
  const run = /* wgsl */ `
  let run = ${rowOfGrid};
  if (run >= p.count) { return; }
  let start = run / p.runs * p.stride + p.first + run % p.runs * p.width;
  let own = run * p.width;`;
  const kept = (run: string) => ({
    inverse: `statistics[${statistics}u * ${run}]`,
    mean: `statistics[${statistics}u * ${run} + 1u]`,
  });
  const standard = (x: string, inverse: string, mean: string) =>
    centred ? `(${x} - ${mean}) * ${inverse}` : `${x} * ${inverse}`;
  const mean = centred
    ? /* wgsl */ `
  var sum = 0.0;
  ${each("sum += x[start + i];")}
  let mean = total(t, sum) / f32(p.width);`
    : "let mean = 0.0;";
  const helpers = `${shares(rowThreads)}${total(rowThreads)}`;
  return {
    statistics,
    forward: kernel({
      name: `train ${name}`,
      params: {
        count: "u32",
        width: "u32",
        runs: "u32",
        stride: "u32",
        first: "u32",
        weight: "u32",
        plus: "f32",
        epsilon: "f32",
      },
      buffers: { normed: readWrite(), statistics: readWrite(), x: read(), weights: read() },
      code: /* wgsl */ `${helpers}
${begin(rowThreads)} {${run}
  ${mean}
  var squares = 0.0;
  ${each("let away = x[start + i] - mean; squares += away * away;")}
  let inverse = inverseSqrt(total(t, squares) / f32(p.width) + p.epsilon);
  ${each(`
    let y = ${standard("x[start + i]", "inverse", "mean")} * (p.plus + weights[p.weight + i]);
    normed[own + i] = y${centred ? " + weights[p.weight + p.width + i]" : ""};`)}
  if (t == 0u) { ${kept("run").inverse} = inverse; ${centred ? `${kept("run").mean} = mean;` : ""} }
}`,
    }),
    back: kernel({
      name: `train ${name} backward`,
      params: {
        count: "u32",
        width: "u32",
        runs: "u32",
        stride: "u32",
        first: "u32",
        toStride: "u32",
        toFirst: "u32",
        weight: "u32",
        plus: "f32",
        accumulate: "u32",
      },
      buffers: { gradient: readWrite(), outer: read(), x: read(), statistics: read(), weights: read() },
      code: /* wgsl */ `${helpers}
${begin(rowThreads)} {${run}
  let to = run / p.runs * p.toStride + p.toFirst + run % p.runs * p.width;
  let inverse = ${kept("run").inverse};
  let mean = ${centred ? kept("run").mean : "0.0"};
  var sum = 0.0;
  var dot = 0.0;
  ${each(`
    let g = outer[own + i] * (p.plus + weights[p.weight + i]);
    sum += g;
    dot += g * ${standard("x[start + i]", "inverse", "mean")};`)}
  let middle = ${centred ? "total(t, sum) / f32(p.width)" : "0.0"};
  let along = total(t, dot) / f32(p.width);
  ${each(`
    let g = outer[own + i] * (p.plus + weights[p.weight + i]);
    let through = inverse * (g - middle - ${standard("x[start + i]", "inverse", "mean")} * along);
    gradient[to + i] = through + select(0.0, gradient[to + i], p.accumulate != 0u);`)}
}`,
    }),
    sums: kernel({
      name: `train ${name} weights`,
      params: { width: "u32", rows: "u32", rowsPerPart: "u32", runs: "u32", stride: "u32", first: "u32" },
      buffers: { parts: readWrite(), outer: read(), x: read(), statistics: read() },
      code: /* wgsl */ `
${begin(rowThreads)} {
  let column = workgroup.x * ${rowThreads}u + t;
  if (column >= p.width) { return; }
  let first = workgroup.y * p.rowsPerPart;
  let end = min(first + p.rowsPerPart, p.rows);
  var weight = 0.0;
  ${addTerms("weight", "first", "end", (r) => {
    const x = `x[${r} / p.runs * p.stride + p.first + ${r} % p.runs * p.width + column]`;
    return `outer[${r} * p.width + column] * ${standard(x, kept(r).inverse, kept(r).mean)}`;
  })}
  parts[${statistics}u * workgroup.y * p.width + column] = weight;
  ${
    centred
      ? /* wgsl */ `
  var bias = 0.0;
  ${addTerms("bias", "first", "end", (r) => `outer[${r} * p.width + column]`)}
  parts[(2u * workgroup.y + 1u) * p.width + column] = bias;`
      : ""
  }
}`,
    }),
  };
}

/** Of every kind of norm. */
export const normKernels: Readonly<Record<NormSpec["kind"], NormKernels>> = {
  rms: kernels("rmsNorm", false),
  layer: kernels("layerNorm", true),
};
