import { type ActivationFunction, DeviceError, type JobOptions, UsageError } from "../../core/index.js";
import { isSparse, type PackedFormatId, type WeightFormatId } from "../../pack/index.js";
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
import type { Routing } from "../experts.js";
import { HostExperts } from "../hostExperts.js";
import type { InputChoice } from "../inputChoice.js";
import { countOf, type KvCache, type KvCacheSpec, type KvMoves, slotsOf } from "../kv.js";
import { morphemeBytes } from "../morphemes.js";
import { LoadedRegion, type Region, type WeightOwner } from "../region.js";
import type { HostRouting } from "../routing.js";
import type { Sight, SightSpec } from "../sight.js";
import type { WeightArea } from "../weightArea.js";
import { ProgramArea } from "./area.js";
import { Arena } from "./arena.js";
import { appendKv, attention, type CachedLayer, copyKv, moveKv } from "./attention.js";
import { readBandwidth, wholeShares } from "./bandwidth.js";
import { measureCosts } from "./costs.js";
import { add, embed, gatedActivation, keepLargest, layerNorm, map, rmsNorm, rope, swapAxes } from "./elementwise.js";
import { addExperts, gatherRows } from "./experts.js";
import { addGram } from "./gram.js";
import { headScores, poolRows, readKeys } from "./keys.js";
import { heapStart } from "./layout.js";
import { linear } from "./linear.js";
import { copyMatrix, loadMatrix, packedFormats, spaceFor } from "./loadMatrix.js";
import type { Machine } from "./machine.js";
import { morphemeScores } from "./morphemes.js";
import {
  Block,
  type Constant,
  own,
  ProgramActivation,
  ProgramKvCache,
  type ProgramMatrix,
  ProgramRopeTable,
  ProgramSight,
  ProgramVector,
} from "./storage.js";
import { topK } from "./topK.js";

/**
 * What products cost, by the description of the machine and the value type: it is no backend's own, so it is measured once in a
 * process. Each measurement takes a memory of some 90 MB, which only the collector gives back, when it pleases.
 */
const machineCosts = new Map<string, Promise<ProductCosts>>();

/**
 * A backend whose operations are recorded as words of a small program in the memory where the weights lie (records.ts); a
 * flush runs it on all threads of a machine.
 */
export class ProgramBackend extends HostExperts implements Backend, WeightOwner {
  readonly info: BackendInfo;
  readonly formats = packedFormats;
  readonly #machine: Machine;
  readonly #arenas: Arena[] = [];
  readonly #caches = new Set<ProgramKvCache>();
  /** The memory whose program is being recorded. */
  #current: Arena;
  #denseBytes = 0;
  #kvBytes = 0;
  /** What is seen where nothing is said. */
  readonly #causal = new ProgramSight({ kind: "causal" });
  #weightBytes = 0;
  #activationBytes = 0;
  #disposed = false;

  private constructor(machine: Machine, first: Arena) {
    super();
    this.#machine = machine;
    this.#arenas.push(first);
    this.#current = first;
    this.info = machine.info;
  }

  /** Takes the machine over, and disposes of it also when it fails. @throws DeviceError when the memory cannot be had */
  static async on(machine: Machine): Promise<ProgramBackend> {
    try {
      return new ProgramBackend(machine, await Arena.create(machine));
    } catch (error) {
      machine[Symbol.dispose]();
      throw error;
    }
  }

  openRegion(): Region {
    this.#alive();
    // Memories grow in place and address space costs nothing, so nothing need be laid out beforehand.
    return new LoadedRegion(this);
  }

  async openArea(byteLength: number): Promise<WeightArea> {
    this.#alive();
    const arena = await this.#arenaFor(byteLength + 65536);
    const area = new ProgramArea(arena, byteLength, {
      threads: this.#threads,
      dot: this.#machine.dot,
      record: (at) => this.#in(at),
      read: (bytes) => {
        this.#denseBytes += bytes;
      },
      onDispose: (disposed) => {
        if (this.#disposed) return;
        disposed.free();
        this.#weightBytes -= byteLength;
      },
    });
    this.#weightBytes += byteLength;
    return area;
  }

  async loadMatrix(parts: readonly RowSource[], format: PackedFormatId, job: JobOptions = {}): Promise<Matrix> {
    this.#alive();
    const arena = await this.#arenaFor(spaceFor(parts, format));
    const matrix = await loadMatrix(arena, this.#threads, parts, format, job);
    this.#weightBytes += matrix.byteLength;
    return matrix;
  }

  loadingBytes(parts: readonly Pick<RowSource, "rows" | "cols">[], format: PackedFormatId): number {
    return spaceFor(parts, format);
  }

  /** As many copies of one matrix as make up `byteLength`: weights that come from memory, whatever the caches hold. */
  async loadCopies(source: RowSource, format: PackedFormatId, byteLength: number): Promise<Matrix[]> {
    const first = (await this.loadMatrix([source], format)) as ProgramMatrix;
    const copies = Array.from({ length: Math.ceil(byteLength / first.byteLength) - 1 }, () => copyMatrix(first));
    return [first, ...copies];
  }

  measureCosts(value: WeightFormatId): Promise<ProductCosts> {
    const key = `${this.info.description}, ${value}`;
    let costs = machineCosts.get(key);
    if (costs === undefined) {
      costs = measureCosts(async () => ProgramBackend.on(await this.#machine.another()), value);
      costs.catch(() => machineCosts.delete(key));
      machineCosts.set(key, costs);
    }
    return costs;
  }

  loadVector(values: Float32Array): Vector {
    this.#weightBytes += values.byteLength;
    return new ProgramVector(values.slice());
  }

  loadRope(cos: Float32Array, sin: Float32Array, layout: RopeLayout): RopeTable {
    this.#weightBytes += cos.byteLength + sin.byteLength;
    return new ProgramRopeTable(cos.slice(), sin.slice(), layout);
  }

  freeMatrix(matrix: Matrix): void {
    if (this.#disposed) return;
    const { arena, parts, offset, byteLength } = this.#ownMatrix(matrix);
    arena.settle();
    // What leaves zeros out lies part by part.
    for (const at of isSparse(matrix.format) ? parts.map((part) => part.offset!) : [offset]) arena.release(at);
    this.#weightBytes -= byteLength;
  }

  freeVector(vector: Vector): void {
    this.#freeConstants((vector as ProgramVector).constant);
  }

  freeRope(table: RopeTable): void {
    const { cos, sin } = table as ProgramRopeTable;
    this.#freeConstants(cos, sin);
  }

  #freeConstants(...constants: readonly Constant[]): void {
    if (this.#disposed) return;
    for (const constant of constants) {
      constant.release();
      this.#weightBytes -= constant.values.byteLength;
    }
  }

  allocate(rows: number, cols: number): Activation {
    this.#alive();
    const block = new Block(rows * cols, this.#current);
    this.#activationBytes += rows * cols * 4;
    return new ProgramActivation(block, 0, cols, rows, cols);
  }

  release(activation: Activation): void {
    const { block } = own(activation);
    block.release();
    this.#activationBytes -= block.count * 4;
  }

  createKvCache(spec: KvCacheSpec): KvCache {
    this.#alive();
    const cache = new ProgramKvCache({ ...spec }, (c) => this.#caches.delete(c));
    this.#caches.add(cache);
    return cache;
  }

  loadSight(spec: SightSpec): Sight {
    return new ProgramSight(spec);
  }

  write(out: Activation, values: Float32Array): void {
    own(out).write(values);
  }

  embed(out: Activation, table: Matrix, ids: Uint32Array): void {
    const matrix = this.#ownMatrix(table);
    this.#in(matrix.arena);
    embed(own(out), matrix, ids, this.#threads);
  }

  rmsNorm(out: Activation, x: Activation, weight: Vector, epsilon: number): void {
    this.#in(own(x).block.home);
    rmsNorm(own(out), own(x), weight as ProgramVector, epsilon);
  }

  linear(out: Activation, x: Activation, w: Matrix, options: LinearOptions = {}): void {
    const matrix = this.#ownMatrix(w);
    this.#in(matrix.arena);
    const counted = linear(own(out), own(x), matrix, options, this.#threads, this.#machine.dot);
    if (!counted) this.#denseBytes += matrix.byteLength;
  }

  addGram(gram: Activation, x: Activation): void {
    this.#in(own(gram).block.home);
    addGram(own(gram), own(x), this.#threads, this.#machine.dot);
  }

  rope(x: Activation, table: RopeTable, start: number): void {
    this.#in(own(x).block.home);
    rope(own(x), table as ProgramRopeTable, start);
  }

  appendKv(cache: KvCache, layer: number, k: Activation, v: Activation | undefined, start: number): void {
    appendKv(this.#cachedLayer(cache, layer, own(k)), own(k), v && own(v), start);
  }

  attention(out: Activation, q: Activation, cache: KvCache, layer: number, options: AttentionOptions): void {
    const sight = (options.sight as ProgramSight | undefined) ?? this.#causal;
    const cached = this.#cachedLayer(cache, layer, own(q));
    this.#kvBytes += attentionBytes(cached, layer, q.rows, options);
    attention(own(out), own(q), cached, options, sight, this.#threads);
  }

  copyKv(from: KvCache, to: KvCache, slots: number | readonly number[]): void {
    const [source, target] = [from, to].map((cache) => this.#ownCache(cache));
    // What is recorded may write what is copied.
    this.#current.run();
    for (const [layer, kept] of source.spec.layers.entries()) {
      const place = source.placed(layer);
      // A layer that was never written has nothing to copy.
      if (place === undefined) continue;
      const [fromSlots, toSlots] = [slotsOf(source.spec, layer), slotsOf(target.spec, layer)];
      copyKv(kept, place, fromSlots, target.layer(layer, place.arena), toSlots, countOf(slots, layer));
    }
  }

  readKeys(out: Activation, cache: KvCache, layer: number, start: number): void {
    const cached = this.#cachedLayer(cache, layer, own(out));
    this.#kvBytes += keyBytes(cached, layer, out.rows, start);
    readKeys(own(out), cached, start, this.#threads);
  }

  poolRows(out: Activation, x: Activation, options: PoolOptions): void {
    this.#in(own(x).block.home);
    poolRows(own(out), own(x), options);
  }

  swapAxes(out: Activation, x: Activation, options: SwapOptions): void {
    this.#in(own(x).block.home);
    swapAxes(own(out), own(x), options);
  }

  morphemeScores(out: Activation, x: Activation, table: Vector, index: Vector, options: MorphemeScoreOptions): void {
    this.#in(own(x).block.home);
    this.#denseBytes += morphemeBytes(out, x, table, index, options);
    morphemeScores(own(out), own(x), table as ProgramVector, index as ProgramVector, options);
  }

  keepLargest(out: Activation, x: Activation, choice: InputChoice): void {
    this.#in(own(x).block.home);
    keepLargest(own(out), own(x), choice);
  }

  headScores(out: Activation, q: Activation, k: Activation, options: HeadScoreOptions): void {
    this.#in(own(k).block.home);
    this.#kvBytes += scoreBytes(q, k, options.stride);
    headScores(own(out), own(q), own(k), options);
  }

  moveKv(cache: KvCache, layer: number, moves: KvMoves): void {
    const own = this.#ownCache(cache);
    const place = own.placed(layer);
    // A layer that was never written has nothing to move.
    if (place === undefined) return;
    this.#in(place.arena);
    moveKv({ place, spec: own.spec, layer, coded: own.coded }, moves);
  }

  gatedActivation(
    out: Activation,
    gate: Activation,
    up: Activation,
    f: ActivationFunction,
    options: GateOptions = {},
  ): void {
    this.#in(own(gate).block.home);
    gatedActivation(own(out), own(gate), own(up), f, options);
  }

  map(out: Activation, x: Activation, f: ElementFunction): void {
    this.#in(own(x).block.home);
    map(own(out), own(x), f);
  }

  layerNorm(out: Activation, x: Activation, weight: Vector, bias: Vector | undefined, epsilon: number): void {
    this.#in(own(x).block.home);
    layerNorm(own(out), own(x), weight as ProgramVector, bias as ProgramVector | undefined, epsilon);
  }

  add(out: Activation, x: Activation): void {
    this.#in(own(out).block.home);
    add(own(out), own(x));
  }

  gatherRows(out: Activation, x: Activation, { slots }: HostRouting): void {
    gatherRows(this.#in(own(x).block.home), own(out), own(x), slots.rows);
  }

  addExperts(out: Activation, x: Activation, routing: Routing): void {
    addExperts(this.#in(own(out).block.home), own(out), own(x), routing as HostRouting);
  }

  async read(activation: Activation): Promise<Float32Array> {
    this.#alive();
    return own(activation).read();
  }

  async topK(activation: Activation, k: number): Promise<TopK[]> {
    this.#in(own(activation).block.home);
    return topK(own(activation), k);
  }

  async readMass(cache: KvCache): Promise<Float32Array[]> {
    const ownCache = this.#ownCache(cache);
    return cache.spec.layers.map(({ heads }, layer) => {
      const place = ownCache.placed(layer);
      const count = slotsOf(cache.spec, layer) * heads;
      if (place === undefined) return new Float32Array(count);
      place.arena.run();
      return place.arena.floats(place.mass, count).slice();
    });
  }

  async flush(): Promise<void> {
    this.#alive();
    this.#current.run();
  }

  takeCounters(): BackendCounters {
    this.#current.run();
    const counters = { ...zeroCounters(), weightBytesRead: this.#denseBytes, kvBytesRead: this.#kvBytes };
    this.#denseBytes = 0;
    this.#kvBytes = 0;
    for (const arena of this.#arenas) {
      const { bytes, inputs, skipped } = arena.takeCounters();
      counters.weightBytesRead += Math.round(bytes);
      counters.inputs += inputs;
      counters.inputsSkipped += skipped;
    }
    return counters;
  }

  memoryBytes(): number {
    let bytes = this.#weightBytes + this.#activationBytes;
    for (const cache of this.#caches) bytes += cache.byteLength;
    return bytes;
  }

  /**
   * How fast this machine reads memory with these threads at best, in bytes per second: the fastest of `repeats` passes
   * over `byteLength` bytes, which should be far more than the caches hold and are taken while it runs.
   */
  async measureReadBandwidth(byteLength = 256 << 20, repeats = 5): Promise<number> {
    this.#alive();
    const size = wholeShares(byteLength, this.#threads);
    return readBandwidth(this.#in(await this.#arenaFor(size)), size, repeats, this.#threads);
  }

  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#caches.clear();
    this.#weightBytes = 0;
    this.#activationBytes = 0;
    this.#machine[Symbol.dispose]();
  }

  /** Makes `arena` the one that is recorded for; what was recorded for another runs first. */
  #in(arena: Arena): Arena {
    this.#alive();
    if (arena !== this.#current) {
      this.#current.run();
      this.#current = arena;
    }
    return arena;
  }

  /**
   * A memory with room for `byteLength`: the newest, an older one where so much was given back, or one more. Beside what stays there
   * must be room for what comes and goes: inputs, outputs and scratch lie in the memory of the matrix.
   */
  async #arenaFor(byteLength: number): Promise<Arena> {
    const { memoryLimit } = this.#machine;
    const passingBytes = Math.min(memoryLimit / 8, 256 << 20);
    const found = this.#arenas.findLast((arena) => arena.fits(byteLength + passingBytes));
    if (found !== undefined) return found;
    if (byteLength > memoryLimit - heapStart - 2 * 65536) {
      throw new DeviceError(`a matrix that needs ${byteLength} bytes does not fit a memory of ${memoryLimit}`);
    }
    const next = await Arena.create(this.#machine);
    this.#arenas.push(next);
    return next;
  }

  get #threads(): number {
    return this.info.threads;
  }

  #alive(): void {
    if (this.#disposed) throw new UsageError("the backend was disposed");
    this.#machine.check();
  }

  #ownMatrix(matrix: Matrix): ProgramMatrix {
    if ("arena" in matrix && this.#arenas.includes(matrix.arena as Arena)) return matrix as ProgramMatrix;
    throw new UsageError("a matrix of another backend");
  }

  /** A layer of a cache, to be recorded for where it lies; one that was never written, where `x` lies. */
  #cachedLayer(cache: KvCache, layer: number, x: ProgramActivation): CachedLayer {
    const own = this.#ownCache(cache);
    const place = own.layer(layer, x.block.home);
    this.#in(place.arena);
    return { place, spec: own.spec, layer, coded: own.coded };
  }

  #ownCache(cache: KvCache): ProgramKvCache {
    if (cache instanceof ProgramKvCache && this.#caches.has(cache)) return cache;
    throw new UsageError("a cache that was disposed or belongs to another backend");
  }
}
