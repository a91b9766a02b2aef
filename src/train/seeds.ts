import { Random } from "../core/index.js";

/**
 * A generator that depends on the run's seed, on what it is for and on an index (a step, an epoch) alone. Nothing of a
 * generator has to be stored for a run to be continued exactly.
 */
export function randomFor(seed: number, purpose: string, index = 0): Random {
  const text = `${purpose}/${seed}/${index}`;
  return new Random(fnv1a(text, 0x811c9dc5) + 2 ** 32 * (fnv1a(text, 0x2f0b4c47) % 2 ** 20));
}

/** 32-bit FNV-1a of the characters. */
function fnv1a(text: string, basis: number): number {
  let hash = basis;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}

/** The numbers 0 … length − 1 in random order (Fisher-Yates). */
export function permutation(random: Random, length: number): Uint32Array {
  const order = Uint32Array.from({ length }, (_, i) => i);
  for (let i = length - 1; i > 0; i--) {
    const j = random.integer(i + 1);
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}
