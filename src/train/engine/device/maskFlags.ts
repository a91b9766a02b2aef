import type { Masks } from "../../optimizers/links.js";
import type { ParameterInfo } from "../../values.js";
import { decays, prunable } from "./updateKernels.js";

/** Where arrays lie among all; each begins at a multiple of four. */
interface ArrayLayout {
  offsets: ReadonlyMap<string, number>;
  length: number;
}

/** Flags of every four entries, as the kernels of `updateKernels.ts` take them. @param decaying default: all decay */
export function flagsOf(
  layout: ArrayLayout,
  parameters: readonly ParameterInfo[],
  masks: Masks,
  decaying: (name: string) => boolean = () => true,
): Uint32Array {
  const flags = new Uint32Array(layout.length / 4).fill(15);
  const kept = packMasks(layout, masks);
  for (const { name, shape } of parameters) {
    const first = layout.offsets.get(name)! / 4;
    const end = first + Math.ceil(shape.reduce((a, b) => a * b, 1) / 4);
    const decay = decaying(name) ? decays : 0;
    const masked = masks.has(name);
    for (let i = first; i < end; i++) flags[i] = (masked ? kept[i] | prunable : 15) | decay;
  }
  return flags;
}

/** Four entries of masks in the low bits of a word. */
export function packMasks({ offsets, length }: ArrayLayout, masks: Masks): Uint32Array {
  const words = new Uint32Array(length / 4);
  for (const [name, mask] of masks) {
    const offset = offsets.get(name)!;
    for (let i = 0; i < mask.length; i++) words[(offset + i) >> 2] |= mask[i] << (i & 3);
  }
  return words;
}

/** Fills the masks. */
export function unpackMasks(offsets: ReadonlyMap<string, number>, words: Uint32Array, masks: Masks): void {
  for (const [name, mask] of masks) {
    const offset = offsets.get(name)!;
    for (let i = 0; i < mask.length; i++) mask[i] = (words[(offset + i) >> 2] >> (i & 3)) & 1;
  }
}
