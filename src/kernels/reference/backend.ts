import { type ActivationFunction, type JobOptions, UsageError } from "../../core/index.js";
import { type PackedFormatId, sparseFormats, weightFormats } from "../../pack/index.js";
import type {
  Activation,
  AttentionOptions,
  Backend,
  BackendCounters,
  BackendInfo,
  ElementFunction,
  GateOptions,
  HeadScoreOptions,
  LinearOptions,
  Matrix,
  MorphemeScoreOptions,
  PoolOptions,
  RopeLayout,
  RopeTable,
  RowSource,
  SwapOptions,
  TopK,
  Vector,
} from "../backend.js";
import { attentionBytes, keyBytes, scoreBytes } from "../codedSlots.js";
import { zeroCounters } from "../counters.js";
import type { Routing } from "../experts.js";
import { HostExperts } from "../hostExperts.js";
import { type InputChoice, keptInputs } from "../inputChoice.js";
import type { KvCache, KvCacheSpec, KvMoves } from "../kv.js";
import { morphemeBytes } from "../morphemes.js";
import { LoadedRegion, type Region, type WeightOwner } from "../region.js";
import type { HostRouting } from "../routing.js";
import type { Sight, SightSpec } from "../sight.js";
import type { WeightArea } from "../weightArea.js";
import { ReferenceArea } from "./area.js";
import { appendKv, attention, copyKv, moveKv } from "./attention.js";
import { add, embed, gatedActivation, layerNorm, map, rmsNorm, rope, swapAxes } from "./elementwise.js";
import { addExperts, gatherRows } from "./experts.js";
import { headScores, poolRows, readKeys } from "./keys.js";
import { linear } from "./linear.js";
import { loadMatrix } from "./loadMatrix.js";
import { morphemeScores } from "./morphemes.js";
import {
  own,
  ReferenceActivation,
  ReferenceKvCache,
  type ReferenceMatrix,
  type ReferenceRopeTable,
  type ReferenceVector,
} from "./storage.js";
import { topK } from "./topK.js";

/**
 * The plain backend: what the operations mean, in TypeScript that runs everywhere. Operations run at once; sums are f64
 * and results are rounded to f32 when stored. The others are tested against the same suite.
 */
export class ReferenceBackend extends HostExperts implements Backend, WeightOwner {
  readonly formats = [...Object.keys(weightFormats), ...Object.keys(sparseFormats)] as PackedFormatId[];
  readonly info: BackendInfo = {
    id: "reference",
    description: "plain TypeScript, one thread",
    arithmetic: "plain TypeScript",
    threads: 1,
  };
  #counters = zeroCounters();
  #weightBytes = 0;
  #activationBytes = 0;
  readonly #caches = new Set<ReferenceKvCache>();
  #disposed = false;

  openRegion(): Region {
    this.#alive();
    // Weights lie in ordinary arrays: there is nothing to lay out beforehand.
    return new LoadedRegion(this);
  }

  async openArea(byteLength: number): Promise<WeightArea> {
    this.#alive();
    this.#weightBytes += byteLength;
    return new ReferenceArea(
      byteLength,
      () => this.#counters,
      () => this.#free(byteLength / 4),
    );
  }

  async loadMatrix(parts: readonly RowSource[], format: PackedFormatId, job: JobOptions = {}): Promise<Matrix> {
    this.#alive();
    const matrix = await loadMatrix(parts, format, job);
    this.#weightBytes += matrix.rows * matrix.cols * 4;
    return matrix;
  }

  loadVector(values: Float32Array): Vector {
    this.#weightBytes += values.byteLength;
    const vector: ReferenceVector = { length: values.length, values: values.slice() };
    return vector;
  }

  loadRope(cos: Float32Array, sin: Float32Array, layout: RopeLayout): RopeTable {
    this.#weightBytes += cos.byteLength + sin.byteLength;
    const table: ReferenceRopeTable = {
      ...layout,
      positions: cos.length / (layout.width / 2),
      cos: cos.slice(),
      sin: sin.slice(),
    };
    return table;
  }

  // The collector frees what nobody refers to; here it is counted.
  freeMatrix({ rows, cols }: Matrix): void {
    this.#free(rows * cols);
  }

  freeVector({ length }: Vector): void {
    this.#free(length);
  }

  freeRope(table: RopeTable): void {
    const { cos, sin } = table as ReferenceRopeTable;
    this.#free(cos.length + sin.length);
  }

  #free(floats: number): void {
    if (!this.#disposed) this.#weightBytes -= 4 * floats;
  }

  allocate(rows: number, cols: number): Activation {
    this.#alive();
    const data = new Float32Array(rows * cols);
    this.#activationBytes += data.byteLength;
    return new ReferenceActivation({ data, released: false }, 0, cols, rows, cols);
  }

  release(activation: Activation): void {
    const { block } = own(activation);
    this.#activationBytes -= block.data.byteLength;
    block.released = true;
    block.data = new Float32Array(0);
  }

  createKvCache(spec: KvCacheSpec): KvCache {
    this.#alive();
    const cache = new ReferenceKvCache({ ...spec }, (c) => this.#caches.delete(c));
    this.#caches.add(cache);
    return cache;
  }

  loadSight(spec: SightSpec): Sight {
    return { spec, [Symbol.dispose]: () => {} };
  }

  write(out: Activation, values: Float32Array): void {
    const target = own(out);
    for (let r = 0; r < out.rows; r++) target.row(r).set(values.subarray(r * out.cols, (r + 1) * out.cols));
  }

  embed(out: Activation, table: Matrix, ids: Uint32Array): void {
    embed(own(out), table as ReferenceMatrix, ids);
  }

  rmsNorm(out: Activation, x: Activation, weight: Vector, epsilon: number): void {
    rmsNorm(own(out), own(x), (weight as ReferenceVector).values, epsilon);
  }

  linear(out: Activation, x: Activation, w: Matrix, options: LinearOptions = {}): void {
    linear(own(out), own(x), w as ReferenceMatrix, options, this.#counters);
  }

  rope(x: Activation, table: RopeTable, start: number): void {
    rope(own(x), table as ReferenceRopeTable, start);
  }

  appendKv(cache: KvCache, layer: number, k: Activation, v: Activation | undefined, start: number): void {
    appendKv(this.#ownCache(cache), layer, own(k), v && own(v), start);
  }

  attention(out: Activation, q: Activation, cache: KvCache, layer: number, options: AttentionOptions): void {
    const ownCache = this.#ownCache(cache);
    this.#counters.kvBytesRead += attentionBytes(ownCache, layer, q.rows, options);
    attention(own(out), own(q), ownCache, layer, options);
  }

  copyKv(from: KvCache, to: KvCache, slots: number | readonly number[]): void {
    copyKv(this.#ownCache(from), this.#ownCache(to), slots);
  }

  readKeys(out: Activation, cache: KvCache, layer: number, start: number): void {
    const ownCache = this.#ownCache(cache);
    this.#counters.kvBytesRead += keyBytes(ownCache, layer, out.rows, start);
    readKeys(own(out), ownCache, layer, start);
  }

  poolRows(out: Activation, x: Activation, options: PoolOptions): void {
    poolRows(own(out), own(x), options);
  }

  swapAxes(out: Activation, x: Activation, options: SwapOptions): void {
    swapAxes(own(out), own(x), options);
  }

  morphemeScores(out: Activation, x: Activation, table: Vector, index: Vector, options: MorphemeScoreOptions): void {
    this.#counters.weightBytesRead += morphemeBytes(out, x, table, index, options);
    const [vectors, places, scales] = [table, index, options.scale].map(
      (v) => (v as ReferenceVector | undefined)?.values,
    );
    morphemeScores(own(out), own(x), vectors!, places!, { ...options, scale: scales });
  }

  keepLargest(out: Activation, x: Activation, choice: InputChoice): void {
    for (let r = 0; r < x.rows; r++)
      own(out)
        .row(r)
        .set(keptInputs(own(x).row(r), choice));
  }

  headScores(out: Activation, q: Activation, k: Activation, options: HeadScoreOptions): void {
    this.#counters.kvBytesRead += scoreBytes(q, k, options.stride);
    headScores(own(out), own(q), own(k), options);
  }

  moveKv(cache: KvCache, layer: number, moves: KvMoves): void {
    moveKv(this.#ownCache(cache), layer, moves);
  }

  gatedActivation(
    out: Activation,
    gate: Activation,
    up: Activation,
    f: ActivationFunction,
    options: GateOptions = {},
  ): void {
    gatedActivation(own(out), own(gate), own(up), f, options);
  }

  map(out: Activation, x: Activation, f: ElementFunction): void {
    map(own(out), own(x), f);
  }

  layerNorm(out: Activation, x: Activation, weight: Vector, bias: Vector | undefined, epsilon: number): void {
    const valuesOf = (vector: Vector) => (vector as ReferenceVector).values;
    layerNorm(own(out), own(x), valuesOf(weight), bias && valuesOf(bias), epsilon);
  }

  add(out: Activation, x: Activation): void {
    add(own(out), own(x));
  }

  gatherRows(out: Activation, x: Activation, { slots }: HostRouting): void {
    gatherRows(own(out), own(x), slots.rows);
  }

  addExperts(out: Activation, x: Activation, routing: Routing): void {
    addExperts(own(out), own(x), routing as HostRouting);
  }

  async read(activation: Activation): Promise<Float32Array> {
    const { rows, cols } = activation;
    const source = own(activation);
    const values = new Float32Array(rows * cols);
    for (let r = 0; r < rows; r++) values.set(source.row(r), r * cols);
    return values;
  }

  async topK(activation: Activation, k: number): Promise<TopK[]> {
    const source = own(activation);
    return Array.from({ length: source.rows }, (_, r) => topK(source.row(r), k));
  }

  async readMass(cache: KvCache): Promise<Float32Array[]> {
    return this.#ownCache(cache).mass.map((mass) => mass.slice());
  }

  async flush(): Promise<void> {}

  takeCounters(): BackendCounters {
    const counters = this.#counters;
    this.#counters = zeroCounters();
    return counters;
  }

  memoryBytes(): number {
    let bytes = this.#weightBytes + this.#activationBytes;
    for (const cache of this.#caches) bytes += cache.byteLength;
    return bytes;
  }

  [Symbol.dispose](): void {
    this.#disposed = true;
    for (const cache of this.#caches) cache[Symbol.dispose]();
    this.#weightBytes = 0;
    this.#activationBytes = 0;
  }

  #alive(): void {
    if (this.#disposed) throw new UsageError("the backend was disposed");
  }

  #ownCache(cache: KvCache): ReferenceKvCache {
    if (cache instanceof ReferenceKvCache && this.#caches.has(cache)) return cache;
    throw new UsageError("a cache that was disposed or belongs to another backend");
  }
}
