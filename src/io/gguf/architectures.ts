import { type Family, families, type GgufFamily } from "../../arch/index.js";

import type { PerHead } from "./rowOrders.js";

type Named = Family & { gguf: GgufFamily };

const named = Object.values(families).filter((family): family is Named => family.gguf !== undefined);

/** Values of `general.architecture` that can be read. */
export const ggufArchitectures: readonly string[] = [...new Set(named.map(({ gguf }) => gguf.architecture))];

/** The family that files of an architecture hold. @param windowed whether the file has a sliding window */
export const familyIn = (architecture: string, windowed: boolean): Named | undefined => {
  const those = named.filter(({ gguf }) => gguf.architecture === architecture);
  return those.find(({ gguf }) => (gguf.windowed ?? false) === windowed) ?? those[0];
};

const swap = ([gguf, checkpoint]: readonly [string, string]): [string, string] => [checkpoint, gguf];
const ggufPattern = /^(?:blk\.(\d{1,5})\.)?(\w+)\.(weight|bias)$/;

/** The name of a tensor of a GGUF file in a checkpoint; undefined for one that the family does not have. */
export function checkpointName({ names }: GgufFamily, name: string): string | undefined {
  const [, layer, stem, kind] = ggufPattern.exec(name) ?? [];
  if (stem === undefined) return undefined;
  const found = new Map(layer === undefined ? names.outside : names.inBlock).get(stem);
  return found && `${layer === undefined ? "" : `${names.layers}.${layer}.`}${found}.${kind}`;
}

/** Whether a tensor of a file is the weight of a norm. */
export const isNorm = (name: string): boolean => name.endsWith("norm.weight");

/** Whether a matrix of a file is the checkpoint's turned. */
export const isTurned = ({ turned = [] }: GgufFamily, name: string): boolean =>
  turned.some((end) => name.endsWith(end));

/** How rows of a tensor of a file are ordered that several maps share; undefined where it has its own order or none. */
export function perHeadOf({ perHead }: GgufFamily, name: string, rows: number, headDim: number): PerHead | undefined {
  if (perHead === undefined || !/^blk\.\d+\.(\w+)\./.exec(name)?.[1].endsWith(perHead.end)) return undefined;
  const { maps } = perHead;
  return { maps, headDim, heads: rows / maps / headDim };
}

/** The reverse of `checkpointName`. */
export function ggufName({ names }: GgufFamily, name: string): string | undefined {
  const inBlock = name.startsWith(`${names.layers}.`) ? name.slice(names.layers.length + 1) : undefined;
  const [, layer, stem, kind] = /^(?:(\d{1,5})\.)?([\w.]+)\.(weight|bias)$/.exec(inBlock ?? name) ?? [];
  if (stem === undefined) return undefined;
  const found = new Map((inBlock === undefined ? names.outside : names.inBlock).map(swap)).get(stem);
  return found && `${inBlock === undefined ? "" : `blk.${layer}.`}${found}.${kind}`;
}
