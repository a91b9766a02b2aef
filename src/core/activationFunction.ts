/** Element-wise functions of gated MLPs, as `hidden_act` names them once mapped to one spelling. */
export type ActivationFunction = "silu" | "relu" | "gelu" | "geluTanh" | "relu2";

/** What a gated MLP makes of its two halves: f(gate) ⊙ up, or with "drelu" ReLU(gate) ⊙ ReLU(up) (TurboSparse, arXiv 2406.05955). */
export type GateFunction = ActivationFunction | "drelu";

const erf = (x: number): number => {
  // Abramowitz and Stegun 7.1.26, |error| < 1.5e-7.
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const poly = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
  return Math.sign(x) * (1 - poly * Math.exp(-x * x));
};

/** The functions in f64, for the reference backend and for statistics. */
export const activationFunctions: Readonly<Record<ActivationFunction, (x: number) => number>> = {
  silu: (x) => x / (1 + Math.exp(-x)),
  relu: (x) => Math.max(x, 0),
  relu2: (x) => Math.max(x, 0) ** 2,
  gelu: (x) => 0.5 * x * (1 + erf(x * Math.SQRT1_2)),
  geluTanh: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
};
