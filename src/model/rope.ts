import type { RopeConfig } from "../io/index.js";

/** Radians per position of each pair of a head: f64 [headDim / 2] (RoFormer, arXiv 2104.09864). */
export function ropeFrequencies(rope: RopeConfig, headDim: number): Float64Array {
  const plain = Float64Array.from({ length: headDim / 2 }, (_, i) => rope.theta ** ((-2 * i) / headDim));
  return plain.map((frequency) => scaledFrequency(rope, frequency));
}

function scaledFrequency(rope: RopeConfig, frequency: number): number {
  switch (rope.type) {
    case "default":
      return frequency;
    case "linear":
      return frequency / rope.factor;
    case "llama3": {
      // Turns in the original context: fast pairs stay, slow ones are stretched, those between are mixed.
      const turns = (rope.originalMaxPositions * frequency) / (2 * Math.PI);
      const share = (turns - rope.lowFreqFactor) / (rope.highFreqFactor - rope.lowFreqFactor);
      const kept = Math.min(1, Math.max(0, share));
      return frequency * (kept + (1 - kept) / rope.factor);
    }
  }
}

/** cos and sin of every position and pair: f32 [positions, headDim / 2] each. Angles are f64. */
export function ropeTables(
  rope: RopeConfig,
  headDim: number,
  positions: number,
): { cos: Float32Array; sin: Float32Array } {
  const frequencies = ropeFrequencies(rope, headDim);
  const half = headDim / 2;
  const cos = new Float32Array(positions * half);
  const sin = new Float32Array(positions * half);
  for (let p = 0; p < positions; p++) {
    for (let i = 0; i < half; i++) {
      cos[p * half + i] = Math.cos(p * frequencies[i]);
      sin[p * half + i] = Math.sin(p * frequencies[i]);
    }
  }
  return { cos, sin };
}
