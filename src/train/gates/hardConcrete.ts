/**
 * Hard concrete gates (Louizos, Welling, Kingma 2018, arXiv:1712.01312): a number in [0, 1] that is exactly 0 and exactly 1 with
 * probabilities of their own, differentiable in the logit of its place between them wherever it is neither.
 *
 * s = sigmoid((ln u − ln(1 − u) + a) / β) of a uniform u is stretched to (γ, ζ) and clipped to [0, 1].
 */
export const hardConcrete = { temperature: 2 / 3, least: -0.1, most: 1.1 } as const;

const { temperature, least, most } = hardConcrete;

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));

/** A gate and its derivative by the logit a. @param u in (0, 1) */
export function sampleGate(a: number, u: number): { gate: number; slope: number } {
  const s = sigmoid((Math.log(u) - Math.log1p(-u) + a) / temperature);
  const stretched = least + (most - least) * s;
  if (stretched <= 0 || stretched >= 1) return { gate: stretched <= 0 ? 0 : 1, slope: 0 };
  return { gate: stretched, slope: ((most - least) * s * (1 - s)) / temperature };
}

/** How much a must be for a stretched value above t to be an even chance. */
const logitOf = (t: number): number => {
  const s = (t - least) / (most - least);
  return temperature * (Math.log(s) - Math.log1p(-s));
};

const threshold = logitOf(0);

/** P(gate > 0), what the expected L0 norm is the sum of, and its derivative by a. */
export function openProbability(a: number): { probability: number; slope: number } {
  const probability = sigmoid(a - threshold);
  return { probability, slope: probability * (1 - probability) };
}

/** Points between 0 and 1 at which P(gate > t) is taken. */
const points = Float64Array.from({ length: 64 }, (_, i) => logitOf((i + 0.5) / 64));

/** The mean of a gate, ∫ P(gate > t) dt from 0 to 1 by the midpoint rule: what stands for it once nothing is drawn any more. */
export function meanGate(a: number): number {
  let sum = 0;
  for (const at of points) sum += sigmoid(a - at);
  return sum / points.length;
}

/** The logit at which a gate is open with a probability. @param probability in (0, 1) */
export const logitFor = (probability: number): number => threshold + Math.log(probability) - Math.log1p(-probability);
