import type { ActivationFunction } from "../../../core/index.js";
import { activationFunction, type Kernel, kernel, read, readWrite } from "../../../kernels/internal.js";
import { begin } from "./elementKernels.js";

/** WGSL of f′(x) for every f; arguments of exp and tanh are bounded, as in f. */
const slopes: Readonly<Record<ActivationFunction, string>> = {
  silu: "let share = 1.0 / (1.0 + exp(min(-x, 80.0))); return share * (1.0 + x * (1.0 - share));",
  relu: "return select(0.0, 1.0, x > 0.0);",
  relu2: "return 2.0 * max(x, 0.0);",
  // What of the standard normal distribution lies below x, by erf of Abramowitz and Stegun 7.1.26, and x times its density.
  gelu: /* wgsl */ `
  let z = abs(x) * 0.70710678118654752;
  let t = 1.0 / (1.0 + 0.3275911 * z);
  let poly = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
  let density = exp(-min(z * z, 80.0));
  return 0.5 * (1.0 + sign(x) * (1.0 - poly * density)) + x * 0.39894228040143268 * density;`,
  geluTanh: /* wgsl */ `
  let t = tanh(clamp(0.7978845608028654 * (x + 0.044715 * x * x * x), -15.0, 15.0));
  return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * 0.7978845608028654 * (1.0 + 0.134145 * x * x);`,
};

/** Columns of x from `first` and, where it is gated, of its factor from `factor` on, in rows `stride` apart. */
const params = { count: "u32", width: "u32", stride: "u32", first: "u32", factor: "u32" } as const;

interface ActivationKernels {
  /** hidden = f(x), or f(x) ∘ factor */
  forward: Kernel<keyof typeof params, "hidden" | "x">;
  /** The gradients of x and of its factor, which lie as these do. */
  back: Kernel<keyof typeof params, "gradient" | "x" | "outer">;
}

function kernels(name: ActivationFunction, gated: boolean): ActivationKernels {
  const code = `${activationFunction(name)}
fn slope(x: f32) -> f32 { ${slopes[name]} }
${begin}
  let row = at / p.width * p.stride + at % p.width;
  let value = x[row + p.first];`;
  const factor = "x[row + p.factor]";
  const title = `train ${gated ? "gated " : ""}${name}`;
  return {
    forward: kernel({
      name: title,
      params,
      buffers: { hidden: readWrite(), x: read() },
      code: `${code}
  hidden[at] = f(value)${gated ? ` * ${factor}` : ""};
}`,
    }),
    back: kernel({
      name: `${title} backward`,
      params,
      buffers: { gradient: readWrite(), x: read(), outer: read() },
      code: `${code}
  gradient[row + p.first] = outer[at] * slope(value)${gated ? ` * ${factor}` : ""};
  ${gated ? "gradient[row + p.factor] = outer[at] * f(value);" : ""}
}`,
    }),
  };
}

/** Of every function, by itself and as a gate. */
export const activationKernels = Object.fromEntries(
  (Object.keys(slopes) as ActivationFunction[]).map((f) => [f, { plain: kernels(f, false), gated: kernels(f, true) }]),
) as Readonly<Record<ActivationFunction, Record<"plain" | "gated", ActivationKernels>>>;
