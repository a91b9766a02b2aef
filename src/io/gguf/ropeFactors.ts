import type { RopeSpec } from "../../arch/index.js";

/** What files say of scaled rotary frequencies in tensors, f32 [width / 2] each: a divisor for every pair. */
export interface RopeTensors {
  /** Of Llama 3. */
  byFrequency?: Float32Array;
  /** Of longrope, for contexts up to the original one and for longer ones. */
  short?: Float32Array;
  long?: Float32Array;
}

/** What they are called. */
export const ropeTensorNames: Readonly<Record<keyof RopeTensors, string>> = {
  byFrequency: "rope_freqs.weight",
  short: "rope_factors_short.weight",
  long: "rope_factors_long.weight",
};

/** The tensors that a file needs for a rotary embedding. */
export function ropeTensorsOf(
  rope: RopeSpec,
  headDim: number,
): Readonly<Partial<Record<keyof RopeTensors, Float32Array>>> {
  if (rope.type === "llama3") return { byFrequency: ropeDivisors(rope, rope.theta, headDim) };
  if (rope.type !== "longrope") return {};
  return { long: Float32Array.from(rope.longFactors), short: Float32Array.from(rope.shortFactors) };
}

/** Half of the widest head. */
export const maxRopeDivisors = 4096;

/**
 * Llama 3 stretches its rotary frequencies by a factor that depends on the frequency. A config says so in four numbers, a
 * GGUF file in one divisor per frequency (tensor `rope_freqs.weight`, f32 [headDim / 2]).
 */
export interface Llama3Scaling {
  factor: number;
  lowFreqFactor: number;
  highFreqFactor: number;
  originalMaxPositions: number;
}

/** The divisors f32 [headDim / 2] of a scaling. */
export function ropeDivisors(scaling: Llama3Scaling, theta: number, headDim: number): Float32Array {
  const { factor, lowFreqFactor, highFreqFactor, originalMaxPositions } = scaling;
  return Float32Array.from({ length: headDim / 2 }, (_, i) => {
    const turns = originalMaxPositions / wavelength(i, theta, headDim);
    if (turns > highFreqFactor) return 1;
    if (turns < lowFreqFactor) return factor;
    const smooth = (turns - lowFreqFactor) / (highFreqFactor - lowFreqFactor);
    return 1 / ((1 - smooth) / factor + smooth);
  });
}

const wavelength = (i: number, theta: number, headDim: number) => 2 * Math.PI * theta ** ((2 * i) / headDim);

/**
 * The scaling that gives these divisors; undefined when there is none. Published models have low 1, high 4 and a power of two
 * as original; others are worked out. The share of the original frequency that is kept,
 * s = (original / wavelength − low) / (high − low), is a straight line in 1 / wavelength between its ends 0 and 1, and low,
 * high and original may be scaled together; low is taken to be 1.
 */
export function fitLlama3Scaling(divisors: Float32Array, theta: number, headDim: number): Llama3Scaling | undefined {
  const factor = divisors.at(-1)!;
  if (divisors.length !== headDim / 2 || !(factor > 1 && factor < 1e6)) return undefined;
  const gives = (scaling: Llama3Scaling) =>
    ropeDivisors(scaling, theta, headDim).every((divisor, i) => Math.abs(divisor / divisors[i] - 1) < 2e-3);
  for (let original = 16; original <= 2 ** 24; original *= 2) {
    const scaling = { factor, lowFreqFactor: 1, highFreqFactor: 4, originalMaxPositions: original };
    if (gives(scaling)) return scaling;
  }
  const points: { frequency: number; share: number }[] = [];
  for (const [i, divisor] of divisors.entries()) {
    const share = (1 / divisor - 1 / factor) / (1 - 1 / factor);
    if (share > 1e-3 && share < 1 - 1e-3) points.push({ frequency: 1 / wavelength(i, theta, headDim), share });
  }
  if (points.length < 2) return undefined;
  const [first, last] = [points[0], points.at(-1)!];
  const slope = (first.share - last.share) / (first.frequency - last.frequency);
  const below = slope * first.frequency - first.share;
  if (!(slope > 0 && below > 0)) return undefined;
  const scaling = {
    factor,
    lowFreqFactor: 1,
    highFreqFactor: Number((1 + 1 / below).toPrecision(4)),
    originalMaxPositions: Math.round(slope / below),
  };
  return scaling.originalMaxPositions >= 1 && gives(scaling) ? scaling : undefined;
}
