import { type ActivationFunction, type JobOptions, UsageError } from "../../core/index.js";
import {
  isSparse,
  type PackedFormatId,
  type SparseFormatId,
  sparseFormats,
  valueTypeOf,
  type WeightFormatId,
  weightFormats,
} from "../../pack/index.js";
import type {
  Activation,
  AttentionOptions,
  Backend,
  BackendCounters,
  BackendInfo,
  Chosen,
  ElementFunction,
  GateOptions,
  GpuWork,
  HeadScoreOptions,
  LinearOptions,
  Matrix,
  PoolOptions,
  ProductCosts,
  RopeLayout,
  RopeTable,
  RowSource,
  SwapOptions,
  TopK,
  Vector,
} from "../backend.js";
import { attentionBytes, keyBytes, scoreBytes } from "../codedSlots.js";
import { zeroCounters } from "../counters.js";
import { pairPlaces } from "../handles.js";
import type { InputChoice } from "../inputChoice.js";
import type { KvCache, KvCacheSpec, KvMoves } from "../kv.js";
import { LoadedRegion, type Region, type WeightOwner } from "../region.js";
import { blockMaskWords, type Sight, type SightSpec } from "../sight.js";
import { Attend } from "./attend.js";
import { appendRows, clearMassOf, copyEntries, moveEntries, readMass } from "./cached.js";
import { GpuChosen } from "./chosen.js";
import { Context } from "./context.js";
import { measureCosts } from "./costs.js";
import { type Device, describeDevice, type GpuMemory, usage } from "./device.js";
import * as elementwise from "./elementwise.js";
import { at } from "./elementwise.js";
import { ExpertBackend } from "./expertBackend.js";
import { HeldWeights } from "./heldWeights.js";
import { keepLargest } from "./inputChoice.js";
import { KeptKv } from "./keptKv.js";
import { headScores, poolRows, readKeys } from "./keys.js";
import { largest } from "./largest.js";
import { fusible, linear } from "./linear.js";
import { lookUp } from "./lookUp.js";
import { type FormatKernels, type GpuMatrix, loadMatrix } from "./matrix.js";
import { NormFusion } from "./normFusion.js";
import { normKernels } from "./normKernels.js";
import type { KernelTime } from "./passTimer.js";
import { tilesOf } from "./productParts.js";
import type { NormsAround } from "./rowProduct.js";
import { checkFormat } from "./selfCheck.js";
import { checkSparseFormat } from "./sparseCheck.js";
import type { SparseKernels } from "./sparseKernels.js";
import { expanded, sparseLinear } from "./sparseLinear.js";
import { isSparseMatrix, loadSparseMatrix } from "./sparseMatrix.js";
import {
  ActivationPool,
  type GpuActivation,
  GpuKvCache,
  type GpuRopeTable,
  type GpuSight,
  type GpuVector,
  own,
  readRows,
} from "./storage.js";
import { elementGroups, rope } from "./wgsl/elementwise.js";
import { addGram, gramTile } from "./wgsl/gram.js";
import { layerNorm } from "./wgsl/rmsNorm.js";
import { sparseAccess } from "./wgsl/sparseAccess.js";

/** The contract on a GPU: operations are recorded, and run when something is read or enough of them have gathered. */
export class WebGpuBackend extends ExpertBackend implements Backend, WeightOwner {
  readonly formats = [...Object.keys(weightFormats), ...Object.keys(sparseAccess)] as PackedFormatId[];
  readonly fusesGates = true;
  readonly #device: Device;
  readonly #context: Context;
  readonly #pool: ActivationPool;
  /** Seen by `chooseAttention`. */
  readonly attend: Attend;
  readonly #normFusion: NormFusion;
  readonly #norms: ReturnType<typeof normKernels>;
  readonly #zeros = new Map<number, GpuVector>();
  readonly #caches = new Set<GpuKvCache>();
  readonly #keptKv: KeptKv;
  readonly #formats = new Map<WeightFormatId, Promise<FormatKernels>>();
  readonly #sparseFormats = new Map<SparseFormatId, Promise<SparseKernels>>();
  readonly #costs = new Map<WeightFormatId, Promise<ProductCosts>>();
  readonly #counters: BackendCounters;

  constructor(device: Device) {
    const context = new Context(device);
    const pool = new ActivationPool(device, context.recorder);
    const counters = zeroCounters();
    super(context, pool, counters, new HeldWeights(context));
    this.#device = device;
    this.#context = context;
    this.#pool = pool;
    this.#counters = counters;
    this.attend = new Attend(this.#context);
    this.#keptKv = new KeptKv(device, context.recorder);
    this.#normFusion = new NormFusion(this.#context);
    this.#norms = normKernels(device);
  }

  /** Kernels that failed their self-check are part of the description. */
  get info(): BackendInfo {
    const disabled = this.problems.map((problem) => `; not used because wrong on this GPU: ${problem}`).join("");
    const arithmetic = describeDevice(this.#device);
    return { id: "webgpu", description: arithmetic + disabled, arithmetic, threads: 1 };
  }

  openRegion(): Region {
    this.#device.throwIfGone();
    return new LoadedRegion(this);
  }

  async loadMatrix(parts: readonly RowSource[], format: PackedFormatId, job: JobOptions = {}): Promise<Matrix> {
    this.#keptKv.free();
    const matrix = await (isSparse(format)
      ? this.#loadSparse(parts, format, job)
      : this.#loadDense(parts, format, job));
    this.weights.byteLength += matrix.byteLength;
    return matrix;
  }

  async #loadDense(parts: readonly RowSource[], format: WeightFormatId, job: JobOptions): Promise<Matrix> {
    return loadMatrix(this.#device, parts, format, await this.formatKernels(format), job);
  }

  async #loadSparse(parts: readonly RowSource[], format: SparseFormatId, job: JobOptions): Promise<Matrix> {
    const dense = await this.formatKernels(sparseFormats[format].value);
    return loadSparseMatrix(this.#device, parts, format, { sparse: await this.#sparseKernels(format), dense }, job);
  }

  measureCosts(value: WeightFormatId): Promise<ProductCosts> {
    let costs = this.#costs.get(value);
    if (costs === undefined) {
      costs = this.#measureCosts(value);
      costs.catch(() => this.#costs.delete(value));
      this.#costs.set(value, costs);
    }
    return costs;
  }

  async #measureCosts(value: WeightFormatId): Promise<ProductCosts> {
    const dense = await this.formatKernels(value);
    const sparse = new Map<SparseFormatId, SparseKernels>();
    for (const format of this.formats) {
      if (isSparse(format) && valueTypeOf(format) === value) sparse.set(format, await this.#sparseKernels(format));
    }
    return measureCosts(this.#context, this.#pool, value, dense, sparse);
  }

  async #sparseKernels(format: SparseFormatId): Promise<SparseKernels> {
    const dense = await this.formatKernels(sparseFormats[format].value);
    let kernels = this.#sparseFormats.get(format);
    if (kernels === undefined) {
      kernels = checkSparseFormat(this.#context, this.#pool, format, dense).then((checked) => {
        this.problems.push(...checked.problems);
        return checked.kernels;
      });
      this.#sparseFormats.set(format, kernels);
    }
    return kernels;
  }

  /** The kernels of a format, checked when the first matrix of it is loaded. */
  protected formatKernels(format: WeightFormatId): Promise<FormatKernels> {
    let kernels = this.#formats.get(format);
    if (kernels === undefined) {
      kernels = checkFormat(this.#context, this.#pool, format).then((checked) => {
        this.problems.push(...checked.problems);
        return checked.kernels;
      });
      this.#formats.set(format, kernels);
    }
    return kernels;
  }

  loadVector(values: Float32Array): Vector {
    const vector: GpuVector = { length: values.length, memory: this.weights.upload(values, "vector") };
    return vector;
  }

  loadRope(cos: Float32Array, sin: Float32Array, layout: RopeLayout): RopeTable {
    const table: GpuRopeTable = {
      ...layout,
      positions: cos.length / (layout.width / 2),
      cos: this.weights.upload(cos, "cosines"),
      sin: this.weights.upload(sin, "sines"),
    };
    return table;
  }

  freeMatrix(matrix: Matrix): void {
    this.weights.freeMatrices([matrix]);
  }

  freeVector(vector: Vector): void {
    this.weights.free([(vector as GpuVector).memory], vector.length * 4);
  }

  freeRope(table: RopeTable): void {
    const { positions, width, cos, sin } = table as GpuRopeTable;
    this.weights.free([cos, sin], positions * width * 4);
  }

  allocate(rows: number, cols: number): Activation {
    return this.#pool.take(rows, cols);
  }

  release(activation: Activation): void {
    this.#normFusion.forget(own(activation));
    this.#pool.giveBack(own(activation));
  }

  createKvCache(spec: KvCacheSpec): KvCache {
    const cache = new GpuKvCache({ ...spec }, this.#keptKv, (disposed) => {
      if (!this.#caches.delete(disposed)) return;
      this.#keptKv.keep(disposed.entries);
      for (const memory of disposed.mass) this.#context.recorder.freeLater(memory);
    });
    this.#keptKv.free();
    this.#caches.add(cache);
    return cache;
  }

  loadSight(spec: SightSpec): Sight {
    if (spec.kind !== "blocks") return { spec, [Symbol.dispose]: () => {} };
    const words = this.#temporary(blockMaskWords(spec), "sight");
    const sight: GpuSight = { spec, words, [Symbol.dispose]: () => this.#context.recorder.freeLater(words) };
    return sight;
  }

  /** Memory of its own with these words: what was recorded before cannot want it. */
  #temporary(words: Uint32Array<ArrayBuffer>, label: string): GpuMemory {
    const memory = this.#device.allocate(words.byteLength, usage.storage | usage.copyDst, label);
    this.#device.gpu.queue.writeBuffer(memory.buffer, 0, words);
    return memory;
  }

  write(out: Activation, values: Float32Array): void {
    const { memory, offset, stride } = own(out);
    const { recorder } = this.#context;
    this.#normFusion.overwrite(own(out));
    // Writes go to the queue at once: what was recorded before must be there first.
    recorder.submit();
    const rowsAtOnce = stride === out.cols ? out.rows : 1;
    for (let row = 0; row < out.rows; row += rowsAtOnce) {
      const begin = row * out.cols;
      this.#device.gpu.queue.writeBuffer(
        memory.buffer,
        (offset + row * stride) * 4,
        values as Float32Array<ArrayBuffer>,
        begin,
        rowsAtOnce * out.cols,
      );
    }
  }

  embed(out: Activation, table: Matrix, ids: Uint32Array): void {
    const dense = isSparseMatrix(table) ? expanded(this.#context, table) : (table as GpuMatrix);
    lookUp(this.#context, own(out), dense, ids);
  }

  rmsNorm(out: Activation, x: Activation, weight: Vector, epsilon: number): void {
    const [target, source] = [own(out), own(x)];
    const width = weight.length;
    if (this.#normFusion.join(target, source, weight as GpuVector, epsilon)) return;
    if (target.memory !== source.memory) this.#normFusion.overwrite(target);
    this.#context.recorder.run(
      this.#norms.find(({ least }) => width >= least)!.kernel,
      { width, epsilon, ...at("out", target), ...at("x", source) },
      { outs: target.memory, xs: source.memory, weight: (weight as GpuVector).memory },
      [x.cols / width, x.rows],
    );
  }

  linear(out: Activation, x: Activation, w: Matrix, options: LinearOptions = {}): void {
    if (options.gate !== undefined && (isSparseMatrix(w) || !fusible(own(x), w as GpuMatrix, options))) {
      const { gate, ...rest } = options;
      const between = this.allocate(x.rows, x.cols);
      this.gatedActivation(between, x, gate.up, gate.f, gate);
      this.linear(out, between, w, rest);
      this.release(between);
    } else if (isSparseMatrix(w)) sparseLinear(this.#context, own(out), own(x), w, options, this.#counters);
    else this.#linear(own(out), own(x), w as GpuMatrix, options);
  }

  #linear(out: GpuActivation, x: GpuActivation, w: GpuMatrix, options: LinearOptions): void {
    const { accumulate, bias, gate } = options;
    const run = (norms: NormsAround) => linear(this.#context, out, x, w, options, this.#counters, norms);
    if (!fusible(x, w, options)) {
      run({});
      return;
    }
    if (gate === undefined && this.#normFusion.lacksFactor(x)) {
      this.#normFusion.consume(x, (before) => run({ before }));
    } else if (accumulate && bias === undefined && (gate === undefined || own(gate.up).memory === x.memory)) {
      // What adds to a residual stream is followed by a norm as a rule.
      this.#normFusion.hold({ out, input: x.memory, tiles: tilesOf(w), run: (after) => run({ after }) });
    } else run({});
  }

  rotatedAttention(
    out: Activation,
    { q, k, v }: { q: Activation; k: Activation; v: Activation },
    table: RopeTable,
    cache: KvCache,
    layer: number,
    options: AttentionOptions & { position: number },
  ): void {
    const { start } = options;
    const rows = { q: own(q), k: own(k), v: own(v), table: table as GpuRopeTable };
    const ownCache = this.#ownCache(cache);
    if (cache.spec.codes !== undefined) {
      for (const x of [q, k]) this.rope(x, table, options.position);
      this.appendKv(cache, layer, k, v, start);
      this.attention(out, q, cache, layer, options);
      return;
    }
    clearMassOf(this.#context, ownCache, layer, start, k.rows);
    this.#counters.kvBytesRead += attentionBytes(ownCache, layer, q.rows, options);
    this.attend.enqueueRotated(own(out), rows, ownCache, layer, options);
  }

  rope(x: Activation, table: RopeTable, start: number): void {
    const { memory, offset, stride } = own(x);
    const { headDim, cos, sin } = table as GpuRopeTable;
    const places = pairPlaces(table);
    const pairs = (x.cols / headDim) * places.half;
    this.#context.recorder.run(
      rope,
      { pairs, headDim, ...places, offset, stride, start },
      { xs: memory, cosines: cos, sines: sin },
      [elementGroups(pairs), x.rows],
    );
  }

  appendKv(cache: KvCache, layer: number, k: Activation, v: Activation | undefined, start: number): void {
    appendRows(this.#context, this.#ownCache(cache), layer, own(k), v && own(v), start);
  }

  attention(out: Activation, q: Activation, cache: KvCache, layer: number, options: AttentionOptions): void {
    const ownCache = this.#ownCache(cache);
    this.#counters.kvBytesRead += attentionBytes(ownCache, layer, q.rows, options);
    this.attend.enqueue(own(out), own(q), ownCache, layer, options);
  }

  copyKv(from: KvCache, to: KvCache, slots: number | readonly number[]): void {
    copyEntries(this.#context, this.#ownCache(from), this.#ownCache(to), slots);
  }

  readKeys(out: Activation, cache: KvCache, layer: number, start: number): void {
    const ownCache = this.#ownCache(cache);
    this.#counters.kvBytesRead += keyBytes(ownCache, layer, out.rows, start);
    readKeys(this.#context, own(out), ownCache, layer, start);
  }

  poolRows(out: Activation, x: Activation, options: PoolOptions): void {
    poolRows(this.#context, own(out), own(x), options);
  }

  swapAxes(out: Activation, x: Activation, options: SwapOptions): void {
    elementwise.swapAxes(this.#context, own(out), own(x), options);
  }

  keepLargest(out: Activation, x: Activation, choice: InputChoice): void {
    keepLargest(this.#context, own(out), own(x), choice);
  }

  headScores(out: Activation, q: Activation, k: Activation, options: HeadScoreOptions): void {
    this.#counters.kvBytesRead += scoreBytes(q, k, options.stride);
    headScores(this.#context, own(out), own(q), own(k), options);
  }

  moveKv(cache: KvCache, layer: number, moves: KvMoves): void {
    if (moves.heads.length === 0) return;
    moveEntries(this.#context, this.#ownCache(cache), layer, moves, (words) => this.#temporary(words, "moves"));
  }

  gatedActivation(
    out: Activation,
    gate: Activation,
    up: Activation,
    f: ActivationFunction,
    options: GateOptions = {},
  ): void {
    elementwise.gatedActivation(this.#context, own(out), own(gate), own(up), f, options);
  }

  map(out: Activation, x: Activation, f: ElementFunction): void {
    elementwise.map(this.#context, own(out), own(x), f);
  }

  layerNorm(out: Activation, x: Activation, weight: Vector, bias: Vector | undefined, epsilon: number): void {
    const [target, source] = [own(out), own(x)];
    const width = weight.length;
    const { memory } = (bias ?? this.#zerosOf(width)) as GpuVector;
    this.#context.recorder.run(
      layerNorm,
      { width, epsilon, ...at("out", target), ...at("x", source) },
      { outs: target.memory, xs: source.memory, weight: (weight as GpuVector).memory, bias: memory },
      [x.cols / width, x.rows],
    );
  }

  #zerosOf(length: number): GpuVector {
    let zeros = this.#zeros.get(length);
    if (zeros === undefined) {
      zeros = this.loadVector(new Float32Array(length)) as GpuVector;
      this.#zeros.set(length, zeros);
    }
    return zeros;
  }

  add(out: Activation, x: Activation): void {
    elementwise.add(this.#context, own(out), own(x));
  }

  addGram(gram: Activation, x: Activation): void {
    const [target, source] = [own(gram), own(x)];
    const tiles = Math.ceil(x.cols / gramTile);
    this.#context.recorder.run(
      addGram,
      { cols: x.cols, rows: x.rows, ...at("out", target), ...at("x", source) },
      { outs: target.memory, xs: source.memory },
      [tiles, tiles],
    );
  }

  async read(activation: Activation): Promise<Float32Array> {
    return readRows(this.#context, own(activation));
  }

  async readMass(cache: KvCache): Promise<Float32Array[]> {
    return readMass(this.#context, this.#ownCache(cache));
  }

  async topK(activation: Activation, k: number): Promise<TopK[]> {
    return largest(this.#context, own(activation), k);
  }

  choose(activation: Activation): Chosen {
    return new GpuChosen(this.#context, this.#pool, own(activation));
  }

  async flush(): Promise<void> {
    await this.#context.recorder.settle();
  }

  /** Counts of sparse products arrive with the next awaited read or flush. */
  takeCounters(): BackendCounters {
    const taken = { ...this.#counters };
    Object.assign(this.#counters, zeroCounters());
    return taken;
  }

  takeGpuWork(): GpuWork {
    return this.#context.recorder.takeWork();
  }

  timeGpu(work: () => Promise<void>): Promise<number | undefined> {
    return this.#context.recorder.time(work);
  }

  /** See `Recorder.timeKernels`. */
  timeKernels(work: () => Promise<void>): Promise<KernelTime[] | undefined> {
    return this.#context.recorder.timeKernels(work);
  }

  memoryBytes(): number {
    let bytes = this.weights.byteLength + this.#pool.liveBytes;
    for (const cache of this.#caches) bytes += cache.byteLength;
    return bytes;
  }

  [Symbol.dispose](): void {
    this.#caches.clear();
    this.weights[Symbol.dispose]();
    this.#device[Symbol.dispose]();
  }

  #ownCache(cache: KvCache): GpuKvCache {
    if (cache instanceof GpuKvCache && this.#caches.has(cache)) return cache;
    throw new UsageError("a cache that was disposed or belongs to another backend");
  }
}
