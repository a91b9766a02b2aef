import { activationFunctions } from "../core/index.js";
import type {
  ActivateStep,
  AttendStep,
  BlockSpec,
  Buffer,
  ChooseStep,
  ContextPruning,
  LinearSpec,
  LinearStep,
  ModelSpec,
  MultiplicativeStep,
  NormSpec,
  RouterSpec,
  Site,
  Step,
  TensorRef,
  Units,
} from "./spec.js";

/** What follows from a description. All of it is pure and reads no weights. */

/** Name and shape of a tensor of the checkpoint. */
export interface NamedShape {
  name: string;
  shape: readonly number[];
}

/** Every step of a block, those of the experts of a mixture behind it. */
export function* stepsOf({ steps }: { steps: readonly Step[] }): Generator<Step> {
  for (const step of steps) {
    yield step;
    if (step.do === "mixture") for (const expert of step.experts) yield* stepsOf(expert);
  }
}

/** The linear maps of a block in the order of its steps, each once; routers, and what prunes contexts, are not among them. */
export function linearsOf(block: { steps: readonly Step[] }): LinearSpec[] {
  const maps: LinearSpec[] = [];
  for (const step of stepsOf(block)) if (step.do === "linear") maps.push(...step.maps.map(({ map }) => map));
  return maps;
}

/** The blocks that have weights of their own, once: layers that share theirs are one block. */
export const distinctBlocks = ({ blocks }: Pick<ModelSpec, "blocks">): BlockSpec[] => [...new Set(blocks)];

/** Where the activations of a block can be seen, each place once, with the maps that read there (none for a gate). */
export function sitesOf(block: BlockSpec): { site: Site; readers: LinearSpec[] }[] {
  const sites = new Map<string, { site: Site; readers: LinearSpec[] }>();
  for (const step of stepsOf(block)) {
    const site = step.do === "linear" || step.do === "activate" ? step.site : undefined;
    if (site === undefined) continue;
    if (!sites.has(site.id)) sites.set(site.id, { site, readers: [] });
    if (step.do === "linear") sites.get(site.id)!.readers.push(...step.maps.map(({ map }) => map));
  }
  return [...sites.values()];
}

/**
 * The roles of the maps whose inputs can be dropped at each place of a block, in the order of its steps; experts share theirs. All
 * that read there are in `sitesOf`.
 */
export function readersOf(block: BlockSpec): Map<string, string[]> {
  const expanded = undroppedMaps(block);
  return new Map(
    sitesOf(block).map(({ site, readers }) => {
      const taking = readers.filter((map) => !expanded.has(map));
      return [site.id, [...new Set(taking.map(({ role }) => role))]];
    }),
  );
}

/**
 * Maps of which no input is dropped: those that make keys and values of latents read what is kept of all positions, and of those
 * whose units are chosen single rows are read, as a whole.
 */
export const undroppedMaps = ({ steps }: BlockSpec): Set<LinearSpec> =>
  new Set(
    steps.flatMap((_, s) => {
      const step = latentAt(steps, s)?.expand ?? choiceAt(steps, s)?.linear;
      return step?.maps.map(({ map }) => map) ?? [];
    }),
  );

/** The function that an activation step applies, in f64: that of its name, or a clamped gate. */
export function functionOf({ f, clamped }: ActivateStep): (x: number) => number {
  if (clamped === undefined) return activationFunctions[f];
  return (x) => {
    const gate = Math.min(x, clamped.limit);
    return gate / (1 + Math.exp(-clamped.sharpness * gate));
  };
}

/**
 * The activation function of a block's MLP, and the roles of the maps that read what it gives; of a mixture, those of each
 * expert. Where the step has `times`, it is a gate, and what is small behind it can be dropped before the product (CATS,
 * arXiv 2404.08763).
 */
export function activationOf(block: BlockSpec): { step: ActivateStep; readers: string[] } | undefined {
  let found: ActivateStep | undefined;
  const readers = new Set<string>();
  for (const step of stepsOf(block)) {
    // Where both halves of an MLP have a function, the last one makes the hidden values.
    if (step.do === "activate") found = readers.size === 0 ? step : found;
    else if (step.do === "linear" && step.of === found?.into) for (const { map } of step.maps) readers.add(map.role);
  }
  return found && { step: found, readers: [...readers] };
}

/** The groups of maps of a block that lose units together. */
export function unitsOf(
  block: BlockSpec,
): { group: string; kind: Units["kind"]; count: number; maps: { map: LinearSpec; axis: Units["axis"] }[] }[] {
  const groups = new Map<string, ReturnType<typeof unitsOf>[number]>();
  for (const map of linearsOf(block)) {
    for (const { group, kind, axis, count } of map.units ?? []) {
      if (!groups.has(group)) groups.set(group, { group, kind, count, maps: [] });
      groups.get(group)!.maps.push({ map, axis });
    }
  }
  return [...groups.values()];
}

/** Columns that a multiplicative map makes. */
export const widthOf = ({ scales, mixes }: MultiplicativeStep["maps"][number]): number => scales.shape[0] * mixes.rows;

/** Columns of every buffer of a block but `x`. */
export function buffersOf(block: BlockSpec, hiddenSize: number): Map<Buffer, number> {
  const widths = new Map<Buffer, number>([["x", hiddenSize]]);
  const set = (buffer: Buffer, width: number) => widths.set(buffer, Math.max(width, widths.get(buffer) ?? 0));
  for (const step of stepsOf(block)) {
    if (step.do === "linear") for (const { map, into } of step.maps) set(into, map.rows);
    else if (step.do === "attend") set(step.into, step.heads * step.kv.v);
    else if (step.do === "multiplicative") for (const map of step.maps) set(map.into, widthOf(map));
    else if (step.do === "convolve") for (const { into } of step.maps) set(into, step.width);
    else if (step.do === "join") set(step.into, step.heads * step.of.reduce((sum, { width }) => sum + width, 0));
    else if ("into" in step && typeof step.of === "string") set(step.into, widths.get(step.of) ?? hiddenSize);
  }
  widths.delete("x");
  return widths;
}

const ofNorm = ({ weight, bias }: NormSpec): TensorRef[] => [weight, ...(bias ? [bias] : [])];
const ofMap = ({ weight, bias }: LinearSpec): TensorRef[] => [weight, ...(bias ? [bias] : [])];

const ofPruning = ({ query, key, bias }: ContextPruning): TensorRef[] => [...ofMap(query), ...ofMap(key), bias];

function ofStep(step: Step): TensorRef[] {
  switch (step.do) {
    case "norm":
      return ofNorm(step.norm);
    case "linear":
      return step.maps.flatMap(({ map }) => ofMap(map));
    case "attend":
      return [...(step.sinks ? [step.sinks] : []), ...(step.pruning ? ofPruning(step.pruning) : [])];
    case "mixture":
      return [...ofMap(step.router.map), ...(step.router.choiceBias ? [step.router.choiceBias] : [])];
    case "multiplicative":
      return step.maps.flatMap(({ scales, mixes }) => [scales, ...ofMap(mixes)]);
    case "convolve":
      return step.maps.flatMap(({ kernel }) => ofMap(kernel));
    case "choose":
      return [...ofMap(step.controller.down), ...ofMap(step.controller.up)];
    default:
      return [];
  }
}

/** The references of a block to tensors, in the order of its steps; those of its gates behind them. */
export const tensorsOfBlock = (block: BlockSpec): TensorRef[] => [
  ...[...stepsOf(block)].flatMap(ofStep),
  ...(block.gates ?? []).flatMap(({ map }) => ofMap(map)),
];

/** Every tensor that a checkpoint of this model holds, once. */
export function tensorsOf({ embedding, blocks, finalNorm, head }: ModelSpec): NamedShape[] {
  const refs = [
    embedding.table,
    ...(embedding.positions ? [embedding.positions.table] : []),
    ...(embedding.types ? [embedding.types] : []),
    ...(embedding.norm ? ofNorm(embedding.norm) : []),
    ...blocks.flatMap(tensorsOfBlock),
    ...(finalNorm ? ofNorm(finalNorm) : []),
    ...(head.kind === "classifier" ? [...stepsOf(head)].flatMap(ofStep) : []),
    ...(head.kind === "none" ? [] : ofMap(head.map)),
  ];
  return [...new Map(refs.map(({ tensor, shape }) => [tensor, { name: tensor, shape }])).values()];
}

/** Whether the head multiplies with the embeddings. */
export const isTied = ({ embedding, head }: ModelSpec): boolean =>
  head.kind !== "none" && head.map.weight.tensor === embedding.table.tensor;

/** Whether a model reads a text as a whole: every position sees all others. Others see what is before them and generate. */
export const isEncoder = ({ blocks }: Pick<ModelSpec, "blocks">): boolean =>
  blocks.some(({ steps }) => steps.some((step) => step.do === "attend" && step.sight.kind === "all"));

/** Whether what a token makes also depends on what those before it were made of, beside their keys and values. */
export const remembersTokens = ({ blocks }: Pick<ModelSpec, "blocks">): boolean =>
  blocks.some(({ steps }) => steps.some((step) => step.do === "convolve"));

/** Most experts that a router can send a token to. */
export const mostExpertsOf = ({ score, perToken, map }: RouterSpec): number => (score === "relu" ? map.rows : perToken);

/** The first step of a kind in a block, also within experts. */
export function findStep<K extends Step["do"]>(
  block: { steps: readonly Step[] },
  kind: K,
): Extract<Step, { do: K }> | undefined {
  for (const step of stepsOf(block)) if (step.do === kind) return step as Extract<Step, { do: K }>;
  return undefined;
}

/** Share of a map's products that one token makes: less than 1 for the maps of experts, and of units that are chosen. */
export function activeShares(block: Pick<BlockSpec, "steps">): Map<LinearSpec, number> {
  const shares = new Map(linearsOf(block).map((map) => [map, 1]));
  for (const chosen of block.steps) {
    if (chosen.do !== "choose") continue;
    const around = block.steps.flatMap((step) =>
      step.do === "linear" ? step.maps.map((one) => ({ step, ...one })) : [],
    );
    for (const { step, map, into } of around) {
      if (into === chosen.of || step.of === chosen.into) shares.set(map, 1 / chosen.block);
    }
  }
  for (const step of block.steps) {
    if (step.do !== "mixture") continue;
    const share = step.router.perToken / step.experts.length;
    for (const expert of step.experts) for (const map of linearsOf(expert)) shares.set(map, share);
  }
  return shares;
}

/**
 * Maps of a step that are no linear steps: routers, controllers, what prunes contexts, thin products and kernels. They stay as they
 * are when a model is compressed, and are packed as they are stored.
 */
export function smallMapsOf(step: Step): LinearSpec[] {
  switch (step.do) {
    case "mixture":
      return [step.router.map];
    case "attend":
      return step.pruning ? [step.pruning.query, step.pruning.key] : [];
    case "multiplicative":
      return step.maps.map(({ mixes }) => mixes);
    case "convolve":
      return step.maps.map(({ kernel }) => kernel);
    case "choose":
      return [step.controller.down, step.controller.up];
    default:
      return [];
  }
}

/** Multiplications of one token with the maps of a block, by role: what a share of zeros in front of each saves. */
export function costsOf(block: BlockSpec): Record<string, number> {
  const costs: Record<string, number> = {};
  const expanded = undroppedMaps(block);
  for (const [map, share] of activeShares(block)) {
    if (expanded.has(map)) continue;
    const { role, rows, cols } = map;
    costs[role] = (costs[role] ?? 0) + rows * cols * share;
  }
  return costs;
}

/** What a block keeps of every position: key heads and their widths; with `valueInKey` a value is the first columns of a key. */
export interface KeptKv {
  heads: number;
  key: number;
  value: number;
  valueInKey?: true;
}

/** What an attention step keeps: of latent attention the latent and the shared key, as one key. */
export const keptBy = ({ kv: { heads, k, v }, latent }: AttendStep): KeptKv =>
  latent === undefined
    ? { heads, key: k, value: v }
    : { heads: 1, key: latent.rank + latent.width, value: latent.rank, valueInKey: true };

/** Keys and values of one position that a block keeps, in f32 bytes. */
export function kvBytesOf(block: BlockSpec): number {
  const attend = findStep(block, "attend");
  if (attend === undefined) return 0;
  const { heads, key, value, valueInKey } = keptBy(attend);
  return heads * (key + (valueInKey ? 0 : value)) * Float32Array.BYTES_PER_ELEMENT;
}

/** The three steps of a block that make keys and values of a latent and attend to them. */
export interface LatentSteps {
  expand: LinearStep;
  attend: AttendStep;
  latent: NonNullable<AttendStep["latent"]>;
}

/** The steps from `at` on, if they are those of latent attention. */
export function latentAt(steps: readonly Step[], at: number): LatentSteps | undefined {
  const [expand, join, attend] = steps.slice(at, at + 3);
  if (expand?.do !== "linear" || join?.do !== "join" || attend?.do !== "attend" || !attend.latent) return undefined;
  return { expand, attend, latent: attend.latent };
}

/** The product and the activation function whose units a choice is from. */
export interface ChosenUnits {
  linear: LinearStep;
  activate: ActivateStep;
  choose: ChooseStep;
}

/** The three steps from `at` on, if they make units of which few are chosen at once. */
export function choiceAt(steps: readonly Step[], at: number): ChosenUnits | undefined {
  const [linear, activate, choose] = steps.slice(at, at + 3);
  if (linear?.do !== "linear" || activate?.do !== "activate" || choose?.do !== "choose") return undefined;
  const { of: units, into } = choose;
  const plain = linear.maps.length === 1 && !linear.add && activate.times === undefined;
  const same = [linear.maps[0].into, activate.of, activate.into, into].every((buffer) => buffer === units);
  return plain && same ? { linear, activate, choose } : undefined;
}

/** How many steps `latentAt` looks at. */
export const latentSteps = 3;
