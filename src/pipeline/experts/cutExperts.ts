import {
  findStep,
  linearsOf,
  type MixtureStep,
  type ModelSpec,
  readModelSpec,
  type TensorRef,
  tensorsOf,
} from "../../arch/index.js";
import { FormatError, UsageError } from "../../core/index.js";
import { type Checkpoint, type FloatDType, isJsonObject, type TensorToWrite } from "../../io/index.js";
import { byteLengthOf, dtypeBytes, fromFloat32 } from "../../tensor/index.js";
import { type Merging, type Summand, Summands, sumOf } from "./mergedExperts.js";

/** What families call the number of their experts. */
const countFields = ["num_local_experts", "num_experts", "n_routed_experts"];

/** A checkpoint with fewer experts: its config, and its tensors, which read from the source when they are written. */
export interface CutExperts {
  config: Record<string, unknown>;
  tensors: TensorToWrite[];
}

/** Entries of the first axis that stay, of a tensor of the source that may have another name. */
interface Taken {
  from: string;
  entries?: readonly number[];
  /** What each of them, or the whole tensor, is the sum of instead, where others are merged into it. */
  sums?: readonly (readonly Summand[])[];
}

/**
 * Leaves out experts, and the rows of routers that choose them. The others are numbered anew, so that any tool that reads the
 * source reads the result.
 * @param kept of every layer, as many each; undefined for layers without experts
 * @param merging what the experts that go are folded into those that stay by
 * @throws UsageError for weights that are stored as codes; FormatError where the config does not say how many experts there are
 */
export function cutExperts(
  checkpoint: Checkpoint,
  spec: ModelSpec,
  kept: readonly (readonly number[] | undefined)[],
  merging?: Merging,
): CutExperts {
  const { artifact, location, tensors } = checkpoint;
  if (Object.keys(artifact?.tensors ?? {}).length > 0) {
    throw new UsageError(
      `${location} is compressed already: leave out experts of the plain model first, then compress it`,
    );
  }
  const count = kept.find((experts) => experts !== undefined)!.length;
  const config = withCount(checkpoint.config, count, `${location}/config.json`);
  const cut = readModelSpec(config, "config.json", undefined, artifact?.blocks);
  const taken = new Map<string, Taken>();
  for (const [layer, experts] of kept.entries()) {
    if (experts === undefined) continue;
    const [before, after] = [spec, cut].map(({ blocks }) => findStep(blocks[layer], "mixture")!);
    const summands = merging && new Summands(checkpoint, before, merging.groups[layer]!, merging.aligns);
    for (const [name, from] of movedIn(before, after, experts, summands)) taken.set(name, from);
  }
  return {
    config,
    tensors: tensorsOf(cut).flatMap(({ name }) => {
      const { from, entries, sums } = taken.get(name) ?? { from: name };
      const parts = tensors.has(from) ? [[name, from]] : pairOf(name, from).filter(([, source]) => tensors.has(source));
      if (parts.length === 0) throw new FormatError({ file: location, field: from, problem: "the tensor is missing" });
      return parts.map(([to, source]) => taking(checkpoint, to, source, entries, sums));
    }),
  };
}

function withCount(raw: unknown, count: number, file: string): Record<string, unknown> {
  const config: Record<string, unknown> = isJsonObject(raw) ? { ...raw } : {};
  const fields = countFields.filter((field) => typeof config[field] === "number");
  if (fields.length === 0) {
    throw new FormatError({
      file,
      problem: "the number of experts is left out",
      expected: `${countFields.join(", ")}`,
    });
  }
  for (const field of fields) config[field] = count;
  return config;
}

/** A matrix stored as a pair of low rank. */
const pairOf = (to: string, from: string): string[][] =>
  ["left", "right"].map((side) => [to, from].map((name) => `${name.replace(/\.weight$/, "")}.low_rank.${side}`));

/** Where the tensors of a layer's mixture come from. */
function* movedIn(
  before: MixtureStep,
  after: MixtureStep,
  kept: readonly number[],
  summands: Summands | undefined,
): Generator<[string, Taken]> {
  const rows = (ref: TensorRef | undefined): [string, Taken][] =>
    ref === undefined ? [] : [[ref.tensor, { from: ref.tensor, entries: kept }]];
  const { map, choiceBias } = before.router;
  yield* [...rows(map.weight), ...rows(map.bias), ...rows(choiceBias)];
  for (const [e, expert] of after.experts.entries()) {
    const own = linearsOf(before.experts[kept[e]]);
    for (const [m, { weight, bias }] of linearsOf(expert).entries()) {
      for (const [to, from] of [
        [weight, own[m].weight],
        [bias, own[m].bias],
      ]) {
        if (to === undefined || from === undefined) continue;
        if (to.stacked === undefined)
          yield [to.tensor, { from: from.tensor, sums: summands && [summands.of(e, m, from === own[m].bias)] }];
        // One tensor holds those of all experts.
        else if (e === 0) {
          const sums = summands && kept.map((_, group) => summands.of(group, m, from === own[m].bias));
          yield [from.tensor, { from: from.tensor, entries: kept, sums }];
        }
      }
    }
  }
}

const pieceBytes = 4 << 20;

function taking(
  checkpoint: Checkpoint,
  name: string,
  from: string,
  entries: readonly number[] | undefined,
  sums: Taken["sums"],
): TensorToWrite {
  const info = checkpoint.tensors.get(from)!;
  const { dtype, shape } = info;
  const whole = byteLengthOf(info);
  const entryBytes = shape.slice(1).reduce((product, size) => product * size, dtypeBytes[dtype]);
  const runs = entries?.map((entry) => [entry * entryBytes, entryBytes]) ?? [[0, whole]];
  return {
    name,
    dtype,
    shape: entries === undefined ? shape : [entries.length, ...shape.slice(1)],
    async *bytes() {
      for (const [r, [start, length]] of runs.entries()) {
        if (sums !== undefined && sums[r].length > 1) {
          yield fromFloat32(dtype as FloatDType, await sumOf(checkpoint, sums[r], length));
          continue;
        }
        for (let at = 0; at < length; at += pieceBytes) {
          yield checkpoint.read(from, start + at, Math.min(pieceBytes, length - at));
        }
      }
    },
  };
}
