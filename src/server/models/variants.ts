import { UsageError } from "../../core/index.js";
import type { ActivationThresholds, LoadedAdapter } from "../../model/index.js";
import { type OpenedModel, thresholdsAt } from "../../pipeline/index.js";
import { type Attention, type KvChoice, parseAttention, parseKv } from "../../runtime/index.js";
import type { Variant } from "../engine/request.js";

/** What a request may choose of how a model runs. */
export interface VariantChoice {
  /** Share of inputs that count as zero, or the model as it is without thresholds. Left out: as its rarefy.json says. */
  readonly sparsity?: number | "dense";
  readonly attention?: string;
  readonly kv?: string;
  /** Name of an adapter. */
  readonly adapter?: string;
}

/** Settings that are remembered; a client could name ever new ones. */
const remembered = 64;

/** The settings of one model: equal choices give one and the same object. */
export class Variants {
  readonly #known = new Map<string, Variant>();
  readonly #thresholds = new Map<number, ActivationThresholds>();
  /** One list for each, by which sequences know that they have the same. */
  readonly #adapters: ReadonlyMap<string, readonly LoadedAdapter[]>;

  constructor(
    readonly opened: OpenedModel,
    readonly defaults: { attention?: Attention; kv?: KvChoice },
    readonly adapters: ReadonlyMap<string, LoadedAdapter>,
  ) {
    this.#adapters = new Map(Array.from(adapters, ([name, adapter]) => [name, [adapter]]));
  }

  /** @throws UsageError for what the model cannot do */
  of({ sparsity: asked, attention, kv, adapter }: VariantChoice): Variant {
    const sparsity = this.#plainest(asked);
    const key = JSON.stringify([sparsity ?? null, attention ?? null, kv ?? null, adapter ?? null]);
    let variant = this.#known.get(key);
    if (variant === undefined) {
      variant = {
        key,
        thresholds: this.#thresholdsOf(sparsity),
        adapters: adapter === undefined ? undefined : this.#adapters.get(adapter)!,
        prefill: this.opened.prefill,
        attention: attention === undefined ? this.defaults.attention : parseAttention(attention),
        kv: kv === undefined ? this.defaults.kv : parseKv(kv),
      };
      if (this.#known.size >= remembered) this.#known.clear();
      this.#known.set(key, variant);
    }
    return variant;
  }

  /** What means the same is one setting, so that its texts run in one pass. */
  #plainest(sparsity: VariantChoice["sparsity"]): VariantChoice["sparsity"] {
    const { artifact, model } = this.opened;
    const dense = sparsity === "dense" || sparsity === 0;
    if (dense) return model.thresholds === undefined ? undefined : "dense";
    return sparsity === artifact?.activationSparsity?.sparsity ? undefined : sparsity;
  }

  #thresholdsOf(sparsity: number | "dense" | undefined): Variant["thresholds"] {
    const { artifact, model } = this.opened;
    if (sparsity === undefined || sparsity === "dense") return sparsity;
    let thresholds = this.#thresholds.get(sparsity);
    if (thresholds === undefined) {
      if (this.#thresholds.size >= remembered) {
        throw new UsageError(`other requests use ${remembered} sparsities already; take one of theirs`);
      }
      thresholds = thresholdsAt(artifact, model.config.spec, sparsity);
      this.#thresholds.set(sparsity, thresholds);
    }
    return thresholds;
  }
}
