import { numpy as np } from "@jax-js/jax";
import type { Buffer, ContextPruning, LinearSpec, NormSpec, SightSpec, TensorRef } from "../../arch/index.js";
import { UsageError } from "../../core/index.js";
import { homeTensor } from "../../io/internal.js";
import { factorNames } from "../../model/internal.js";
import { elementCount } from "../../tensor/index.js";
import { causalMask } from "../engine/attention.js";
import { contextLeft, shareLeft } from "../engine/interactions.js";
import { largestInputs, layerNorm, linear, rmsNorm } from "../engine/layers.js";
import { add, reshape, type Traced } from "../engine/ops.js";
import type { TracedArrays } from "../engine/tracedObjective.js";
import { memberCountsName, memberSumsName } from "../models/clusterOptions.js";
import { sigmoidName, sigmoidPerUnitName } from "../models/contextNames.js";
import { parameterName } from "../models/parameters.js";
import type { AdaptedOptions } from "./adaptation.js";
import type { PassOptions } from "./options.js";

/** What the mixtures of a pass leave behind beside their outputs. */
export interface MixtureRecord {
  /** Scalars, to be added to the loss. */
  penalties: readonly Traced[];
  /** f32 [experts]: tokens that chose each. */
  load: Traced;
}

/** What came to the centroids of a block that has some which move. */
export interface MemberRecord {
  block: number;
  /** f32 [heads, clusters, width]: the sum of unit queries and keys that were nearest. */
  sums: Traced;
  /** f32 [heads, clusters]: how many. */
  counts: Traced;
}

/** What a gate of a pass leaves behind. */
export interface GateRecord {
  /** Weights of the maps that it is about. */
  readonly weights: number;
  /** Mean share of tokens that it let through. */
  readonly share: Traced;
  /** How far it is from telling which tokens of a text are among the most wanted; where that is what is learnt. */
  readonly missed?: Traced;
}

/** One pass of sequences of one length through a described model, while the engine traces it. */
export class TracedPass {
  /** Of every mixture so far, in the order of the blocks. */
  readonly mixtures: MixtureRecord[] = [];
  /** Of every block with centroids that move so far. */
  readonly members: MemberRecord[] = [];
  /** What adapters add to the loss. */
  readonly penalties: Traced[] = [];
  /** Of every layer that prunes its context so far, the mean share of earlier positions that it leaves. */
  readonly contexts: Traced[] = [];
  /** Of every gate so far. */
  readonly gates: GateRecord[] = [];
  readonly #masks = new Map<string, Traced>();
  readonly #cut = new Map<Traced, Traced>();

  constructor(
    readonly weights: TracedArrays,
    readonly batch: TracedArrays,
    readonly sequences: number,
    /** Tokens of a sequence. */
    readonly window: number,
    readonly options: PassOptions & AdaptedOptions,
    /** Added to the scores of attention that sees all: far below 0 where a text is only filled up. */
    readonly filling?: Traced,
    /** f32 [sequences, window]: 0 where a text is only filled up, else 1; for attention by clusters. */
    readonly real?: Traced,
  ) {}

  get rows(): number {
    return this.sequences * this.window;
  }

  /** W [rows, cols] or a vector of the description. */
  weight(ref: TensorRef): Traced {
    return this.weights[parameterName(ref)];
  }

  /** x [rows, in] through a linear map: its matrix, a pair of low rank or both, its bias, and what lies beside it. */
  project(x: Traced, map: LinearSpec): Traced {
    const adapted = this.options.adapted?.get(parameterName(map.weight));
    const seen = this.cut(adapted?.inputs?.(x, this) ?? x);
    const home = homeTensor(map);
    const { left, right } = factorNames(home);
    const name = home in this.weights ? home : parameterName(map.weight);
    const pair = left in this.weights && linear(linear(seen, this.weights[right]), this.weights[left]);
    const direct = name in this.weights && linear(seen, this.weights[name]);
    const y = pair && direct ? add(pair, direct) : pair || direct || undefined;
    if (y === undefined) throw new UsageError(`${name} is not among the parameters`);
    const whole = map.bias === undefined ? y : add(y, this.weight(map.bias));
    return adapted?.outputs?.(whole, x, this) ?? whole;
  }

  /** As `project`, of all the input: of heads and routers. */
  whole(x: Traced, { weight, bias }: LinearSpec): Traced {
    const y = linear(x, this.weight(weight));
    return bias === undefined ? y : add(y, this.weight(bias));
  }

  /** What linear maps see of their input. */
  cut(x: Traced): Traced {
    const { inputDensity } = this.options;
    if (inputDensity === undefined) return x;
    const found = this.#cut.get(x) ?? largestInputs(x, inputDensity);
    this.#cut.set(x, found);
    return found;
  }

  /** What context pruning leaves of earlier positions. @param x what queries are made of */
  left(x: Traced, { query, key, bias }: ContextPruning): Traced {
    const split = (map: LinearSpec) => reshape(this.whole(x, map), [this.sequences, this.window, map.rows]);
    const [values, perUnit] = [this.batch[sigmoidName], this.batch[sigmoidPerUnitName]];
    const left = contextLeft(split(query), split(key), this.weight(bias), values && { values, perUnit });
    this.contexts.push(shareLeft(left));
    return left;
  }

  /** Every run of as many columns as the norm has weights is normalised by itself. */
  norm(x: Traced, { kind, weight, bias, plusOne, epsilon }: NormSpec): Traced {
    const stored = this.weight(weight);
    const factor = plusOne ? add(1, stored) : stored;
    const run = elementCount(stored.shape);
    const [rows, width] = x.shape;
    const runs = width === run ? x : reshape(x, [rows, width / run, run]);
    const normed =
      kind === "rms"
        ? rmsNorm(runs, factor, epsilon)
        : layerNorm(runs, factor, bias === undefined ? undefined : this.weight(bias), epsilon);
    return width === run ? normed : reshape(normed, [rows, width]);
  }

  /** What the blocks so far say of their clusters, by the names under which it is measured. */
  get measuredMembers(): TracedArrays {
    return Object.fromEntries(
      this.members.flatMap(({ block, sums, counts }) => [
        [memberSumsName(block), sums],
        [memberCountsName(block), counts],
      ]),
    );
  }

  /** What is added to the scores of attention, if anything. */
  mask(sight: SightSpec): Traced | undefined {
    if (sight.kind === "all") return this.filling;
    const seen = sight.kind === "window" ? Math.min(sight.window, this.window) : this.window;
    const key = String(seen);
    const found =
      this.#masks.get(key) ?? np.array(causalMask(this.window, seen), { shape: [this.window, this.window] });
    this.#masks.set(key, found);
    return found;
  }
}

/** The buffers of a block, and which block it is. */
export interface BlockPass {
  pass: TracedPass;
  /** Number of the block. */
  layer: number;
  /** f32 [rows, columns] each; "x" is the residual stream. */
  buffers: Map<Buffer, Traced>;
  /** f32 [sequences, window, window]: which keys are there, where a gate let only some tokens through. Left out, all. */
  there?: Traced;
}
