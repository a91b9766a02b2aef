import {
  type BlockSpec,
  findStep,
  isTied,
  type LinearSpec,
  type LinearStep,
  linearsOf,
  type MixtureStep,
  type ModelSpec,
  type NormSpec,
  type RouterSpec,
  type Step,
  type TensorRef,
} from "../arch/index.js";
import { activeShares, type ChosenUnits, choiceAt, type LatentSteps, latentAt } from "../arch/internal.js";
import { type FormatError, Stage, UsageError } from "../core/index.js";
import type { Checkpoint, StoredFactors } from "../io/index.js";
import { findNonFinite } from "../io/internal.js";
import type { Backend, ExpertMatrices, Matrix, Region, Vector } from "../kernels/index.js";
import { type WeightFormatId, weightFormats } from "../pack/index.js";
import { dtypeBytes } from "../tensor/index.js";
import { Blocks } from "./blocks.js";
import { loadChain } from "./chain.js";
import { blocksOfRank } from "./expertRanks/share.js";
import { FactoredTable } from "./factoredTable.js";
import { embeddingFormat, packedMatrixBytes, padTo4, positionFormat, routerFormat, rowsFormat } from "./footprint.js";
import { type StoredMap, storedMap, storedMatrices, storedTensors } from "./forms.js";
import type { LoadModelOptions } from "./loadOptions.js";
import { MatrixLoader } from "./matrixLoader.js";
import type { ExpertOffload } from "./offload/experts.js";
import type { OffloadLoader } from "./offload/loader.js";
import { type OffloadLoaders, offloadLoaders } from "./offload/loadersFor.js";
import type { Offload } from "./offload/offload.js";
import { type OwningRegion, owningRegion } from "./owningRegion.js";
import type { LoadedPruning, Operation } from "./pass.js";
import { routeOptions } from "./routeOptions.js";
import { loadOnce } from "./sharedBlocks.js";
import { pairWidth, type SplitStack, type Stack, type StackPart, type WholeStack } from "./stack.js";
import type { MatrixChoice } from "./structure.js";
import { type ReadEvents, readBytesOf, readVector, type TensorSource, unheard } from "./tensorRows.js";
import type { loadSmall } from "./thin/index.js";
import type { LoadedSmall } from "./thin/loaded.js";
import type { BlockWeights, LatentMaps, LoadedMixture, LoadedNorm, ModelWeights } from "./weights.js";

/** Logits of the columns that pad the vocabulary to a multiple of 4: never the largest, of no weight in a softmax. */
const paddingLogit = -1e30;

/** Loads every tensor of a description, packing matrices straight from the file. The tensors must have been checked. */
export async function loadWeights(
  checkpoint: Checkpoint,
  backend: Backend,
  spec: ModelSpec,
  options: LoadModelOptions,
): Promise<ModelWeights> {
  const { expertRanks } = options;
  const own = expertRanks ? { ...spec, blocks: blocksOfRank(spec.blocks, 0, expertRanks.count) } : spec;
  const left =
    options.offload &&
    (await import("./offload/loaders.js")).leftInFile(checkpoint, spec, { ...options, offload: options.offload });
  const storedBytes = storedTensors(own, checkpoint.tensors).reduce(
    (sum, { name }) => sum + (left?.has(name) ? 0 : readBytesOf(checkpoint.tensors.get(name)!)),
    0,
  );
  const stage = new Stage("load weights", storedBytes, "bytes", options.onProgress);
  let damage: FormatError | undefined;
  const events: ReadEvents = {
    onRead: (tensor, byteLength) => stage.advance(byteLength, tensor.name),
    onSuspect(tensor, bytes, first) {
      damage ??= findNonFinite(checkpoint.location, tensor, bytes, first);
    },
  };
  const region = owningRegion(
    backend.openRegion({ weightBytes: packedMatrixBytes(checkpoint, own, options.weights).loaded }),
  );
  try {
    const offloads = await offloadLoaders(checkpoint, backend, region, options, spec);
    const loader = new WeightLoader(checkpoint, backend, region, options, events, offloads, region);
    const head = spec.head.kind === "none" ? undefined : await loader.head(spec.head.map);
    const embedding =
      head !== undefined && isTied(spec) && "matrix" in head
        ? head.matrix
        : ((await loader.factoredTable(spec.embedding.table)) ??
          (await loader.table(spec.embedding.table, embeddingFormat(checkpoint, spec, options.weights))));
    const { positions, types, norm } = spec.embedding;
    const table = (ref: TensorRef) => loader.table(ref, positionFormat(checkpoint, ref));
    const finalNorm = spec.finalNorm && (await loader.norm(spec.finalNorm));
    const { blocks, again } = await loadOnce(
      spec.blocks,
      (block) => loader.block(block),
      () => loader.bytes.perToken,
    );
    const loaded = {
      region,
      ...(positions && { positions: await table(positions.table) }),
      ...(types && { types: await table(types) }),
      ...(spec.head.kind === "classifier" && { headSteps: await loader.block(spec.head) }),
      ...(norm && { embeddingNorm: await loader.norm(norm) }),
      embedding,
      blocks,
      finalNorm,
      head,
      choices: loader.choices,
      bytes: { ...loader.bytes, perToken: loader.bytes.perToken + again },
      damage,
    };
    const offload = await loader.openOffload();
    return { ...loaded, ...(offload && { offload }) };
  } catch (error) {
    region[Symbol.dispose]();
    throw error;
  }
}

/**
 * Loads blocks of a model alone, into a region of a backend on which others come and go; disposing of them gives all of it
 * back.
 * @param spec whose blocks are loaded, and nothing else
 * @param source with the tensors of the blocks
 */
export async function loadBlocks(
  spec: ModelSpec,
  source: TensorSource,
  backend: Backend,
  options: LoadModelOptions,
): Promise<Blocks> {
  const { byteLength } = weightFormats[options.weights];
  const weightBytes = spec.blocks
    .flatMap((block) => linearsOf(block).flatMap((map) => storedMatrices(storedMap(map, source.tensors))))
    .reduce((sum, { rows, cols }) => sum + byteLength(rows, cols), 0);
  const region = backend.openRegion({ weightBytes });
  try {
    const loader = new WeightLoader(source, backend, region, options, unheard);
    const weights: BlockWeights[] = [];
    for (const block of spec.blocks) weights.push(await loader.block(block));
    return new Blocks(backend, spec, region, weights);
  } catch (error) {
    region[Symbol.dispose]();
    throw error;
  }
}

/** Loads the experts of blocks alone, each with all that its mixture lists. Disposing of the region gives them back. */
export async function loadExperts(
  blocks: readonly BlockSpec[],
  source: TensorSource,
  backend: Backend,
  options: LoadModelOptions,
): Promise<{ region: Region; experts: readonly ReadonlyMap<Step, ExpertMatrices>[] }> {
  const mixtures = blocks.map((block) => findStep(block, "mixture"));
  const maps = mixtures.flatMap((step) => step?.experts.flatMap((expert) => linearsOf(expert)) ?? []);
  const stored = maps.flatMap((map) => storedMatrices(storedMap(map, source.tensors)));
  const { byteLength } = weightFormats[options.weights];
  const weightBytes = stored.reduce((sum, { rows, cols }) => sum + byteLength(rows, cols), 0);
  const stage = new Stage(
    "load experts",
    stored.reduce((sum, { rows, cols }) => sum + rows * cols, 0),
    "weights",
    options.onProgress,
  );
  const region = backend.openRegion({ weightBytes });
  try {
    const onRead: ReadEvents["onRead"] = ({ name, dtype }, byteLength) =>
      stage.advance(byteLength / dtypeBytes[dtype], name);
    const loader = new WeightLoader(source, backend, region, options, { ...unheard, onRead });
    const experts: ReadonlyMap<Step, ExpertMatrices>[] = [];
    for (const step of mixtures) experts.push(step === undefined ? new Map() : await loader.experts(step));
    return { region, experts };
  } catch (error) {
    region[Symbol.dispose]();
    throw error;
  }
}

/** Loads weights by what they are for, and counts them. */
class WeightLoader {
  readonly #matrices: MatrixLoader;
  #perToken = 0;
  /** Bytes of what a token is not multiplied with: idle experts, embeddings, vectors. */
  #besides = 0;
  constructor(
    readonly source: TensorSource,
    readonly backend: Backend,
    readonly region: Region,
    readonly options: LoadModelOptions,
    readonly events: ReadEvents,
    /** Takes the steps whose weights stay in the file. */
    readonly offloads?: OffloadLoaders,
    /** Takes memory of which single rows are read; left out where nothing is decoded. */
    readonly beside?: OwningRegion,
  ) {
    this.#matrices = new MatrixLoader(source, backend, region, options, events);
  }

  get choices(): readonly MatrixChoice[] {
    return this.#matrices.choices;
  }

  /** See `Model.weightBytes`. */
  get bytes(): { perToken: number; loaded: number } {
    return { perToken: this.#perToken, loaded: this.#perToken + this.#besides };
  }

  async head(map: LinearSpec): Promise<WholeStack | SplitStack> {
    const { rows, weight, bias } = map;
    const padded = padTo4(rows);
    const { factors } = storedMap(map, this.source.tensors);
    const values =
      padded === rows && bias === undefined ? undefined : new Float32Array(padded).fill(paddingLogit, rows);
    if (bias !== undefined) values!.set(await this.values(bias));
    if (factors !== undefined) {
      const chain = await this.#chain(map, weight, factors, values);
      return { parts: [{ rowStart: 0, rows: padded, chain }], right: undefined, rightOf: [] };
    }
    const matrix = await this.#matrix([{ ref: weight, rows }], padTo4);
    return values === undefined ? { matrix } : { matrix, bias: this.vector(values) };
  }

  /** Rows that are looked up and not multiplied with. */
  async table(table: TensorRef, format: WeightFormatId): Promise<Matrix> {
    const loaded = await this.#matrices.loadAs({ ref: table, rows: table.shape[0] }, format);
    this.#besides += loaded.byteLength;
    return loaded;
  }

  /** Rows that are made of factors when they are looked up; undefined where they are stored as they are. */
  async factoredTable(table: TensorRef): Promise<FactoredTable | undefined> {
    const tensor = this.source.tensors.get(table.tensor)!;
    if (tensor.factors === undefined) return undefined;
    const [rows, cols] = table.shape;
    const loaded = await FactoredTable.load(tensor.factors, { rows, cols });
    this.events.onRead(tensor, readBytesOf(tensor));
    this.#besides += loaded.byteLength;
    return loaded;
  }

  async #chain({ rows, cols }: LinearSpec, { tensor }: TensorRef, factors: StoredFactors, bias?: Float32Array) {
    const chain = await loadChain(this.region, tensor, factors, { rows, cols }, bias);
    const stored = this.source.tensors.get(tensor)!;
    this.events.onRead(stored, readBytesOf(stored));
    this.#perToken += chain.byteLength;
    return chain;
  }

  async norm({ weight, bias, plusOne }: NormSpec): Promise<LoadedNorm> {
    const values = await this.values(weight);
    return {
      weight: this.vector(plusOne ? values.map((value) => 1 + value) : values),
      ...(bias && { bias: this.vector(await this.values(bias)) }),
    };
  }

  async block(block: BlockSpec): Promise<BlockWeights> {
    const norms = new Map<Step, LoadedNorm>();
    const stacks = new Map<Step, Stack>();
    const mixtures = new Map<Step, LoadedMixture>();
    const latents = new Map<Step, LatentMaps>();
    const sinks = new Map<Step, Vector>();
    const prunings = new Map<Step, LoadedPruning>();
    const small = new Map<Step, LoadedSmall>();
    const offloaded = new Map<Step, Operation>();
    const [{ steps }, shares] = [block, activeShares(block)];
    const mlps = this.offloads?.mlps;
    let lowRank = 0;
    for (const [s, step] of steps.entries()) {
      const absorbed = latentAt(steps, s);
      if (absorbed !== undefined) latents.set(step, await this.#latent(absorbed));
      else if (step.do === "norm") norms.set(step, await this.norm(step.norm));
      else if (step.do === "mixture") mixtures.set(step, await this.#mixture(step));
      else if (step.do === "attend") {
        if (step.sinks) sinks.set(step, this.vector(await this.values(step.sinks)));
        if (step.pruning) {
          const { loadPruning } = await import("./contextPruning.js");
          const matrix = (map: LinearSpec) => this.#deciding(map);
          prunings.set(step, await loadPruning(step, matrix, (ref) => this.values(ref)));
        }
      } else if (step.do === "multiplicative" || step.do === "convolve" || step.do === "choose") {
        const units = choiceAt(steps, s - 2);
        small.set(step, await this.#small(step, units, units && stacks.get(units.linear)));
      } else if (step.do === "linear" && mlps?.has(step)) {
        offloaded.set(step, await this.#offloaded(step, mlps));
      } else if (step.do === "linear") {
        const before = this.#perToken;
        const stack = await this.#stack(step, choiceAt(steps, s) !== undefined);
        // Of what is only chosen from, a token reads the chosen.
        const idle = (1 - (shares.get(step.maps[0].map) ?? 1)) * (this.#perToken - before);
        this.#perToken -= idle;
        this.#besides += idle;
        lowRank = Math.max(lowRank, pairWidth(stack));
        stacks.set(step, stack);
      }
    }
    const gates = block.gates && (await (await import("./gates.js")).loadGates(block, this));
    return { norms, stacks, mixtures, latents, sinks, prunings, small, offloaded, ...(gates && { gates }), lowRank };
  }

  async #small(step: Parameters<typeof loadSmall>[0], units?: ChosenUnits, stack?: Stack): Promise<LoadedSmall> {
    const { loadSmall, loadRows } = await import("./thin/index.js");
    const { beside } = this;
    const rows = units && stack && beside && (await loadRows(units, this.source, this.backend, this.options));
    if (rows) beside!.own(rows.area);
    this.#besides += rows?.area.byteLength ?? 0;
    return loadSmall(step, {
      region: { loadVector: (numbers) => this.vector(numbers) },
      matrix: (map) => this.#deciding(map),
      values: (ref) => this.values(ref),
      ...(rows && { gathers: { rows, stack, ...units } }),
    });
  }

  /** @param readsRows where single rows of the matrix are read of a copy, which is to hold the same numbers */
  async #stack({ maps }: LinearStep, readsRows: boolean): Promise<Stack> {
    const forms = maps.map(({ map }) => storedMap(map, this.source.tensors));
    if (forms.some(({ lowRank, factors }) => lowRank !== undefined || factors !== undefined))
      return this.#splitStack(forms);
    const refs = forms.map(({ map, direct }) => ({ ref: direct!, rows: map.rows }));
    const matrix = await this.#matrix(refs, undefined, readsRows ? rowsFormat(this.options.weights) : undefined);
    const bias = await this.#bias(maps.map(({ map }) => map));
    return bias === undefined ? { matrix } : { matrix, bias };
  }

  /** Biases of a stack, one behind the other; undefined without any. */
  async #bias(maps: readonly LinearSpec[]): Promise<Vector | undefined> {
    if (maps.every(({ bias }) => bias === undefined)) return undefined;
    const values = new Float32Array(maps.reduce((sum, { rows }) => sum + rows, 0));
    let rowStart = 0;
    for (const { bias, rows } of maps) {
      if (bias !== undefined) values.set(await this.values(bias), rowStart);
      rowStart += rows;
    }
    return this.vector(values);
  }

  async #offloaded(step: LinearStep, loader: OffloadLoader): Promise<Operation> {
    const bias = await this.#bias(step.maps.map(({ map }) => map));
    const { offloaded, byteLength } = await loader.step(step, (parts) => this.#matrix(parts), bias);
    this.#perToken += byteLength;
    const { offloadedLinear } = await import("./offload/loaders.js");
    return offloadedLinear(step, offloaded);
  }

  /** Once everything else is loaded; undefined where nothing is offloaded. */
  openOffload(): Promise<Offload | ExpertOffload> | undefined {
    return (this.offloads?.mlps ?? this.offloads?.experts)?.open(this.bytes.loaded);
  }

  async #splitStack(forms: readonly StoredMap[]): Promise<SplitStack> {
    const pairs = forms.flatMap(({ lowRank }) => lowRank ?? []);
    const right =
      pairs.length === 0 ? undefined : await this.#matrix(pairs.map(({ right, rank }) => ({ ref: right, rows: rank })));
    const parts: StackPart[] = [];
    let rowStart = 0;
    let pair = 0;
    for (const { map, direct, lowRank, factors } of forms) {
      const { rows, bias } = map;
      if (factors !== undefined) {
        const chain = await this.#chain(map, direct!, factors, bias && (await this.values(bias)));
        parts.push({ rowStart, rows, chain });
        rowStart += rows;
        continue;
      }
      parts.push({
        rowStart,
        rows,
        ...(bias && { bias: this.vector(await this.values(bias)) }),
        ...(lowRank && {
          lowRank: {
            left: await this.#matrix([{ ref: lowRank.left, rows }]),
            rankStart: right!.parts[pair++].rowStart,
          },
        }),
        ...(direct && { direct: await this.#matrix([{ ref: direct, rows }]) }),
      });
      rowStart += rows;
    }
    const rightOf = [...forms.keys()].filter((p) => forms[p].lowRank !== undefined);
    return { parts, right, rightOf };
  }

  async #latent({ expand, attend }: LatentSteps): Promise<LatentMaps> {
    const [keys, values] = expand.maps.map(({ map }) => map);
    for (const map of [keys, values]) {
      if (storedMap(map, this.source.tensors).lowRank !== undefined) {
        throw new UsageError(`${map.weight.tensor} as a pair of low rank cannot be run in latent attention yet`);
      }
    }
    // A map without picked rows is one of a tensor of its own.
    const ofHead = ({ rows, weight }: LinearSpec, head: number): TensorRef => {
      const run = rows / attend.heads;
      const { first, stride } = weight.rows ?? { first: 0, stride: run };
      return { ...weight, rows: { first: first + head * stride, run, stride: run, runs: 1 } };
    };
    const maps: { keys: Matrix[]; values: Matrix[] } = { keys: [], values: [] };
    for (let head = 0; head < attend.heads; head++) {
      maps.keys.push(await this.#matrix([{ ref: { ...ofHead(keys, head), flipped: true }, rows: keys.cols }]));
      maps.values.push(await this.#matrix([{ ref: ofHead(values, head), rows: attend.kv.v }]));
    }
    return maps;
  }

  async #mixture(step: MixtureStep): Promise<LoadedMixture> {
    const { expertRanks: ranks } = this.options;
    const { router } = step;
    const { choiceBias } = router;
    const options = routeOptions(router, choiceBias && (await this.#counted(choiceBias)));
    const routed = { router: await this.#router(router), options };
    const loader = this.offloads?.experts;
    if (loader !== undefined) {
      for (const [s, inner] of step.experts[0].steps.entries()) {
        const biases = inner.do === "linear" ? await this.#expertBiases(step.experts, s) : undefined;
        if (biases !== undefined)
          loader.keepBiases(
            inner,
            biases.map((bias) => this.region.loadVector(bias)),
          );
      }
      return { ...routed, experts: new Map(), offload: () => loader.opened };
    }
    const experts = await this.experts(step, ranks?.own(step.experts.length));
    return { ...routed, experts, ...(ranks && { ranks }) };
  }

  /** The matrices of the first `count` experts, by the linear steps of the first. */
  async experts({ router, experts: all }: MixtureStep, count = all.length): Promise<ReadonlyMap<Step, ExpertMatrices>> {
    const experts = all.slice(0, count);
    const share = router.perToken / router.map.rows;
    const matrices = new Map<Step, ExpertMatrices>();
    for (const [s, step] of experts[0].steps.entries()) {
      if (step.do !== "linear") continue;
      const refs = experts.map(({ steps }) =>
        (steps[s] as LinearStep).maps.map(({ map }) => ({ ref: map.weight, rows: map.rows })),
      );
      const loaded = await this.#matrices.loadExperts(refs, await this.#expertBiases(experts, s));
      this.#perToken += loaded.byteLength * share;
      this.#besides += loaded.byteLength * (1 - share);
      matrices.set(step, loaded);
    }
    return matrices;
  }

  /** Biases of step `s` of every expert; undefined without any. */
  async #expertBiases(experts: MixtureStep["experts"], s: number): Promise<Float32Array[] | undefined> {
    const maps = experts.map(({ steps }) => (steps[s] as LinearStep).maps.map(({ map }) => map));
    if (maps[0].every(({ bias }) => bias === undefined)) return undefined;
    const biases: Float32Array[] = [];
    for (const ofExpert of maps) {
      const values = new Float32Array(ofExpert.reduce((sum, { rows }) => sum + rows, 0));
      let start = 0;
      for (const { bias, rows } of ofExpert) {
        if (bias !== undefined) values.set(await this.values(bias), start);
        start += rows;
      }
      this.#besides += values.byteLength;
      biases.push(values);
    }
    return biases;
  }

  /** Maps that decide are not rounded more than they are stored. */
  async #deciding(map: LinearSpec, pad?: (rows: number) => number): Promise<Matrix> {
    const { weight: ref, rows } = map;
    const matrix = await this.#matrices.loadAs({ ref, rows }, routerFormat(this.source, { map }), pad);
    this.#perToken += matrix.byteLength;
    return matrix;
  }

  async #router(router: RouterSpec): Promise<WholeStack> {
    const { bias } = router.map;
    const matrix = await this.#deciding(router.map, padTo4);
    if (bias === undefined) return { matrix };
    const values = new Float32Array(matrix.rows);
    values.set(await this.values(bias));
    return { matrix, bias: this.vector(values) };
  }

  async #matrix(
    refs: readonly { ref: TensorRef; rows: number }[],
    pad?: (rows: number) => number,
    format?: WeightFormatId,
  ): Promise<Matrix> {
    const loaded = await (format ? this.#matrices.loadAs(refs[0], format, pad) : this.#matrices.load(refs, pad));
    this.#perToken += loaded.byteLength;
    return loaded;
  }

  async values(ref: TensorRef): Promise<Float32Array> {
    this.options.signal?.throwIfAborted();
    return readVector(this.source, ref, this.events);
  }

  async #counted(ref: TensorRef): Promise<Float32Array> {
    const values = await this.values(ref);
    this.#besides += values.byteLength;
    return values;
  }

  vector(values: Float32Array): Vector {
    this.#besides += values.byteLength;
    return this.region.loadVector(values);
  }
}
