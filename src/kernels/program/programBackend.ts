import { type ActivationFunction, DeviceError, type JobOptions, UsageError } from "../../core/index.js";
import type { PackedFormatId, WeightFormatId } from "../../pack/index.js";
import type {
  Activation,
  AttentionOptions,
  Backend,
  BackendCounters,
  BackendInfo,
  ElementFunction,
  KvCache,
  KvCacheSpec,
  LinearOptions,
  Matrix,
  ProductCosts,
  RopeTable,
  RowSource,
  TopK,
  Vector,
} from "../backend.js";
import type { Routing } from "../experts.js";
import { HostExperts, type HostRouting } from "../hostExperts.js";
import { Arena } from "./arena.js";
import { appendKv, attention } from "./attention.js";
import { readBandwidth, wholeShares } from "./bandwidth.js";
import { measureCosts } from "./costs.js";
import { add, embed, gatedActivation, layerNorm, map, rmsNorm, rope } from "./elementwise.js";
import { addExperts, gatherRows } from "./experts.js";
import { addGram } from "./gram.js";
import { heapStart } from "./layout.js";
import { linear } from "./linear.js";
import { copyMatrix, loadMatrix, packedFormats, spaceFor } from "./loadMatrix.js";
import type { Machine } from "./machine.js";
import {
  Block,
  own,
  ProgramActivation,
  ProgramKvCache,
  type ProgramMatrix,
  ProgramRopeTable,
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
export class ProgramBackend extends HostExperts implements Backend {
  readonly info: BackendInfo;
  readonly formats = packedFormats;
  readonly #machine: Machine;
  readonly #arenas: Arena[] = [];
  readonly #caches = new Set<ProgramKvCache>();
  /** The memory whose program is being recorded. */
  #current: Arena;
  #denseBytes = 0;
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

  reserve(_plan: { weightBytes: number }): void {
    // Memories grow in place and address space costs nothing, so nothing need be laid out beforehand.
  }

  async loadMatrix(parts: readonly RowSource[], format: PackedFormatId, job: JobOptions = {}): Promise<Matrix> {
    this.#alive();
    const arena = await this.#arenaFor(spaceFor(parts, format));
    const matrix = await loadMatrix(arena, this.#threads, parts, format, job);
    this.#weightBytes += matrix.byteLength;
    return matrix;
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

  loadRope(cos: Float32Array, sin: Float32Array, headDim: number): RopeTable {
    this.#weightBytes += cos.byteLength + sin.byteLength;
    return new ProgramRopeTable(cos.slice(), sin.slice(), headDim);
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

  appendKv(cache: KvCache, layer: number, k: Activation, v: Activation, start: number): void {
    const place = this.#ownCache(cache).layer(layer, own(k).block.home);
    this.#in(place.arena);
    appendKv(place, cache.spec, own(k), own(v), start);
  }

  attention(out: Activation, q: Activation, cache: KvCache, layer: number, options: AttentionOptions): void {
    const place = this.#ownCache(cache).layer(layer, own(q).block.home);
    this.#in(place.arena);
    attention(own(out), own(q), place, cache.spec, options, this.#threads);
  }

  gatedActivation(
    out: Activation,
    gate: Activation,
    up: Activation,
    f: ActivationFunction,
    options: { gateThreshold?: number } = {},
  ): void {
    this.#in(own(gate).block.home);
    gatedActivation(own(out), own(gate), own(up), f, options.gateThreshold ?? 0);
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

  async flush(): Promise<void> {
    this.#alive();
    this.#current.run();
  }

  takeCounters(): BackendCounters {
    this.#current.run();
    const counters = { weightBytesRead: this.#denseBytes, inputs: 0, inputsSkipped: 0 };
    this.#denseBytes = 0;
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

  /** A memory with room for `byteLength`: the newest, or one more. */
  async #arenaFor(byteLength: number): Promise<Arena> {
    const last = this.#arenas[this.#arenas.length - 1];
    if (last.fits(byteLength)) return last;
    const { memoryLimit } = this.#machine;
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

  #ownCache(cache: KvCache): ProgramKvCache {
    if (cache instanceof ProgramKvCache && this.#caches.has(cache)) return cache;
    throw new UsageError("a cache that was disposed or belongs to another backend");
  }
}
