import { type Family, families, type GgufFamily } from "../../arch/index.js";

import type { PerHead } from "./rowOrders.js";

type Named = Family & { gguf: GgufFamily };

const named = Object.values(families).filter((family): family is Named => family.gguf !== undefined);

/** Values of `general.architecture` that can be read. */
export const ggufArchitectures: readonly string[] = [...new Set(named.map(({ gguf }) => gguf.architecture))];

const hasExperts = ({ experts, joined = [] }: GgufFamily) =>
  experts !== undefined || joined.some(({ units }) => units === "experts");

/**
 * The family that files of an architecture hold.
 * @param windowed whether the file has a sliding window @param isMixture whether it has experts
 */
export const familyIn = (architecture: string, windowed: boolean, isMixture: boolean): Named | undefined => {
  const those = named.filter(({ gguf }) => gguf.architecture === architecture && hasExperts(gguf) === isMixture);
  return those.find(({ gguf }) => (gguf.windowed ?? false) === windowed) ?? those[0];
};

const swap = ([gguf, checkpoint]: readonly [string, string]): [string, string] => [checkpoint, gguf];
const ggufPattern = /^(?:blk\.(\d{1,5})\.)?(\w+)\.(weight|bias)$/;

/** The name of a tensor of a GGUF file in a checkpoint; undefined for one that the family does not have. */
export function checkpointName({ names }: GgufFamily, name: string): string | undefined {
  const [, layer, stem, kind] = ggufPattern.exec(name) ?? [];
  if (stem === undefined) return undefined;
  const known = new Map(layer === undefined ? names.outside : names.inBlock);
  const stemmed = known.get(stem);
  const found = known.get(`${stem}.${kind}`) ?? (stemmed && `${stemmed}.${kind}`);
  return found && `${layer === undefined ? "" : `${names.layers}.${layer}.`}${found}`;
}

const stackPattern = /^blk\.(\d{1,5})\.(\w+)\.weight$/;

/** What the maps of experts in a stack of a file are called in a checkpoint, by their number; undefined for no stack. */
export function expertNames({ names, experts }: GgufFamily, name: string): ((expert: number) => string) | undefined {
  const [, layer, stem] = stackPattern.exec(name) ?? [];
  const map = new Map(experts?.maps).get(stem);
  if (map === undefined) return undefined;
  return (expert) => `${names.layers}.${layer}.${experts!.module}.${expert}.${map}.weight`;
}

/** The number of the block that a tensor of a checkpoint belongs to, and the name behind it; undefined and the name outside of blocks. */
export function placeOf({ layers }: GgufFamily["names"], name: string): [layer: string | undefined, name: string] {
  if (!name.startsWith(`${layers}.`)) return [undefined, name];
  const [, layer, rest] = /^(\d{1,5})\.(.+)$/.exec(name.slice(layers.length + 1)) ?? [];
  return [layer, rest ?? name];
}

/** The reverse: the stack that a map of a checkpoint belongs to and its number there; undefined for what is no expert's. */
export function stackOf({ names, experts }: GgufFamily, name: string): { name: string; expert: number } | undefined {
  const [layer, inBlock] = placeOf(names, name);
  if (experts === undefined || layer === undefined || !inBlock.startsWith(`${experts.module}.`)) return undefined;
  const [expert, map] = inBlock.slice(experts.module.length + 1).split(".");
  const stem = new Map(experts.maps.map(swap)).get(map);
  return stem === undefined ? undefined : { name: `blk.${layer}.${stem}.weight`, expert: Number(expert) };
}

/** Whether a tensor of a file chooses among experts, which llama.cpp has in f32. */
export const isRouter = (name: string): boolean => name.endsWith(".ffn_gate_inp.weight");

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
  const [layer, whole] = placeOf(names, name);
  const known = new Map((layer === undefined ? names.outside : names.inBlock).map(swap));
  const [, stem, kind] = /^(.+)\.(weight|bias)$/.exec(whole) ?? [];
  const stemmed = known.get(stem);
  const found = known.get(whole) ?? (stemmed && `${stemmed}.${kind}`);
  return found && `${layer === undefined ? "" : `blk.${layer}.`}${found}`;
}
