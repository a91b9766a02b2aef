import { type ActivationFunction, DeviceError, type JobOptions, UsageError } from "../../core/index.js";
import { isSparse, type PackedFormatId, type WeightFormatId } from "../../pack/index.js";
import type {
  Activation,
  AttentionOptions,
  Backend,
  BackendCounters,
  BackendInfo,
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
import * as shapes from "../shapes.js";
import { Arena } from "./arena.js";
import { measureCosts } from "./costs.js";
import { addExperts, gatherRows } from "./experts.js";
import { addGram } from "./gram.js";
import type { Kernels } from "./kernels.js";
import * as layout from "./layout.js";
import { linear } from "./linear.js";
import { copyMatrix, formatCode, loadMatrix, packedFormats, spaceFor } from "./loadMatrix.js";
import { Pool } from "./pool.js";
import { Block, own, WasmActivation, WasmKvCache, type WasmMatrix, WasmRopeTable, WasmVector } from "./storage.js";

const functionCode: Readonly<Record<ActivationFunction, number>> = {
  silu: layout.functionSilu,
  relu: layout.functionRelu,
  gelu: layout.functionGelu,
  geluTanh: layout.functionGeluTanh,
  relu2: layout.functionRelu2,
};

/** Ids are written into the program, which has an end. */
const embedRows = 1024;

export interface WasmBackendSettings {
  threads: number;
  /** Largest size of one WebAssembly memory in bytes; weights beyond it go into further memories. */
  memoryLimit: number;
  /** Whether the calling thread may wait on memory: not on a page's main thread. */
  mayBlock: boolean;
}

/**
 * WebAssembly SIMD on threads. Operations are recorded as words of a small program in the memory where the weights lie; a
 * flush runs it on all threads inside WebAssembly, where they meet after each operation without coming back to
 * JavaScript. The calling thread works too, so a flush blocks it.
 */
export class WasmBackend extends HostExperts implements Backend {
  readonly info: BackendInfo;
  readonly formats = packedFormats;
  readonly #kernels: Kernels;
  readonly #pool: Pool;
  readonly #settings: WasmBackendSettings;
  readonly #arenas: Arena[] = [];
  readonly #caches = new Set<WasmKvCache>();
  readonly #costs = new Map<WeightFormatId, Promise<ProductCosts>>();
  /** The memory whose program is being recorded. */
  #current: Arena;
  #denseBytes = 0;
  #weightBytes = 0;
  #activationBytes = 0;
  #disposed = false;

  private constructor(kernels: Kernels, pool: Pool, first: Arena, settings: WasmBackendSettings) {
    super();
    this.#kernels = kernels;
    this.#pool = pool;
    this.#settings = settings;
    this.#arenas.push(first);
    this.#current = first;
    const threads = pool.threads === 1 ? "1 thread" : `${pool.threads} threads`;
    const arithmetic = `WebAssembly SIMD, ${kernels.build}`;
    this.info = {
      id: "wasm",
      description: `${arithmetic}, ${kernels.dot} dot product, ${threads}`,
      arithmetic,
      threads: pool.threads,
    };
  }

  /** @throws DeviceError when the threads or the memory cannot be had */
  static async create(kernels: Kernels, settings: WasmBackendSettings): Promise<WasmBackend> {
    const pool = await Pool.start(settings.threads);
    try {
      const first = await Arena.create(0, kernels, pool, settings.memoryLimit, settings.mayBlock);
      return new WasmBackend(kernels, pool, first, settings);
    } catch (error) {
      pool[Symbol.dispose]();
      throw error;
    }
  }

  reserve(_plan: { weightBytes: number }): void {
    // Memories grow in place and address space costs nothing, so nothing need be laid out beforehand.
  }

  async loadMatrix(parts: readonly RowSource[], format: PackedFormatId, job: JobOptions = {}): Promise<Matrix> {
    this.#alive();
    shapes.checkParts(parts);
    shapes.checkFormat(format, this.formats);
    const arena = await this.#arenaFor(spaceFor(parts, format));
    const matrix = await loadMatrix(arena, this.#pool.threads, parts, format, job);
    this.#weightBytes += matrix.byteLength;
    return matrix;
  }

  /** As many copies of one matrix as make up `byteLength`: weights that come from memory, whatever the caches hold. */
  async loadCopies(source: RowSource, format: PackedFormatId, byteLength: number): Promise<Matrix[]> {
    const first = (await this.loadMatrix([source], format)) as WasmMatrix;
    const copies = Array.from({ length: Math.ceil(byteLength / first.byteLength) - 1 }, () => copyMatrix(first));
    return [first, ...copies];
  }

  measureCosts(value: WeightFormatId): Promise<ProductCosts> {
    let costs = this.#costs.get(value);
    if (costs === undefined) {
      costs = measureCosts(() => WasmBackend.create(this.#kernels, this.#settings), value);
      costs.catch(() => this.#costs.delete(value));
      this.#costs.set(value, costs);
    }
    return costs;
  }

  loadVector(values: Float32Array): Vector {
    this.#weightBytes += values.byteLength;
    return new WasmVector(values.slice());
  }

  loadRope(cos: Float32Array, sin: Float32Array, headDim: number): RopeTable {
    this.#weightBytes += cos.byteLength + sin.byteLength;
    return new WasmRopeTable(cos.slice(), sin.slice(), headDim);
  }

  allocate(rows: number, cols: number): Activation {
    this.#alive();
    shapes.checkAllocate(rows, cols);
    const block = new Block(rows * cols, this.#current);
    this.#activationBytes += rows * cols * 4;
    return new WasmActivation(block, 0, cols, rows, cols);
  }

  release(activation: Activation): void {
    const { block } = own(activation);
    block.release();
    this.#activationBytes -= block.count * 4;
  }

  createKvCache(spec: KvCacheSpec): KvCache {
    this.#alive();
    const cache = new WasmKvCache({ ...spec }, (c) => this.#caches.delete(c));
    this.#caches.add(cache);
    return cache;
  }

  write(out: Activation, values: Float32Array): void {
    shapes.checkWrite(out, values);
    const target = own(out);
    const arena = target.block.home;
    arena.run();
    const offset = target.writeIn(arena);
    for (let r = 0; r < out.rows; r++) {
      arena.floats(offset + r * target.stride * 4, out.cols).set(values.subarray(r * out.cols, (r + 1) * out.cols));
    }
  }

  embed(out: Activation, table: Matrix, ids: Uint32Array): void {
    shapes.checkEmbed(out, table, ids);
    const w = this.#ownMatrix(table);
    const arena = this.#in(w.arena);
    const target = own(out);
    const at = target.writeIn(arena);
    for (let row = 0; row < ids.length; row += embedRows) {
      const some = ids.subarray(row, row + embedRows);
      const operands = {
        out: at + row * target.stride * 4,
        outStride: target.stride,
        cols: out.cols,
        weights: w.offset,
        paddedRows: w.packedRows,
        format: formatCode[w.format],
        ids: some,
      };
      if (!isSparse(w.format)) arena.record("embed", operands);
      else {
        const scratchBytes = layout.unpackedBytes;
        const scratch = arena.scratch(this.#pool.threads * scratchBytes);
        arena.record("unpackRows", { ...operands, scratch, scratchBytes });
      }
    }
  }

  rmsNorm(out: Activation, x: Activation, weight: Vector, epsilon: number): void {
    shapes.checkRmsNorm(out, x, weight.length);
    const source = own(x);
    const target = own(out);
    const arena = this.#in(source.block.home);
    arena.record("rmsNorm", {
      out: target.writeIn(arena),
      outStride: target.stride,
      x: source.readIn(arena),
      xStride: source.stride,
      rows: x.rows,
      cols: x.cols,
      weight: (weight as WasmVector).constant.readIn(arena),
      weightLength: weight.length,
      epsilon,
    });
  }

  linear(out: Activation, x: Activation, w: Matrix, options: LinearOptions = {}): void {
    shapes.checkLinear(out, x, w, options);
    const matrix = this.#ownMatrix(w);
    this.#in(matrix.arena);
    const counted = linear(own(out), own(x), matrix, options, this.#pool.threads, this.#kernels.dotCode);
    if (!counted) this.#denseBytes += matrix.byteLength;
  }

  addGram(gram: Activation, x: Activation): void {
    shapes.checkAddGram(gram, x);
    this.#in(own(gram).block.home);
    addGram(own(gram), own(x), this.#pool.threads, this.#kernels.dotCode);
  }

  rope(x: Activation, table: RopeTable, start: number): void {
    shapes.checkRope(x, table, start);
    const target = own(x);
    const arena = this.#in(target.block.home);
    const { cos, sin } = table as WasmRopeTable;
    arena.record("rope", {
      x: target.readIn(arena),
      stride: target.stride,
      rows: x.rows,
      heads: x.cols / table.headDim,
      headDim: table.headDim,
      cos: cos.readIn(arena),
      sin: sin.readIn(arena),
      start,
    });
  }

  appendKv(cache: KvCache, layer: number, k: Activation, v: Activation, start: number): void {
    shapes.checkAppendKv(cache, layer, k, v, start);
    const keys = own(k);
    const values = own(v);
    const place = this.#ownCache(cache).layer(layer, keys.block.home);
    const arena = this.#in(place.arena);
    const { kvHeads, headDim, capacity } = cache.spec;
    arena.record("appendKv", {
      k: keys.readIn(arena),
      kStride: keys.stride,
      v: values.readIn(arena),
      vStride: values.stride,
      rows: k.rows,
      kvHeads,
      headDim,
      keys: place.keys,
      values: place.values,
      capacity,
      start,
    });
  }

  attention(out: Activation, q: Activation, cache: KvCache, layer: number, options: AttentionOptions): void {
    shapes.checkAttention(out, q, cache, layer, options);
    const queries = own(q);
    const target = own(out);
    const place = this.#ownCache(cache).layer(layer, queries.block.home);
    const arena = this.#in(place.arena);
    const { kvHeads, headDim, capacity } = cache.spec;
    const scratchBytes = layout.attentionScoreBytes + 8 * headDim * 4;
    const scratch = arena.scratch(this.#pool.threads * scratchBytes);
    const source = queries.readIn(arena);
    arena.record("attention", {
      out: target.writeIn(arena),
      outStride: target.stride,
      q: source,
      qStride: queries.stride,
      rows: q.rows,
      queryHeads: options.queryHeads,
      kvHeads,
      headDim,
      keys: place.keys,
      values: place.values,
      capacity,
      start: options.start,
      window: options.window ?? 0,
      scale: options.scale,
      scratch,
      scratchBytes,
    });
  }

  gatedActivation(
    out: Activation,
    gate: Activation,
    up: Activation,
    f: ActivationFunction,
    options: { gateThreshold?: number } = {},
  ): void {
    shapes.checkSameShape("gatedActivation", out, gate);
    shapes.checkSameShape("gatedActivation", gate, up);
    const [target, g, u] = [own(out), own(gate), own(up)];
    const arena = this.#in(g.block.home);
    arena.record("gatedActivation", {
      gate: g.readIn(arena),
      gateStride: g.stride,
      up: u.readIn(arena),
      upStride: u.stride,
      out: target.writeIn(arena),
      outStride: target.stride,
      rows: out.rows,
      cols: out.cols,
      activation: functionCode[f],
      threshold: options.gateThreshold ?? 0,
    });
  }

  add(out: Activation, x: Activation): void {
    shapes.checkSameShape("add", out, x);
    const target = own(out);
    const source = own(x);
    const arena = this.#in(target.block.home);
    arena.record("add", {
      out: target.readIn(arena),
      outStride: target.stride,
      x: source.readIn(arena),
      xStride: source.stride,
      rows: out.rows,
      cols: out.cols,
    });
  }

  gatherRows(out: Activation, x: Activation, { slots }: HostRouting): void {
    gatherRows(this.#in(own(x).block.home), own(out), own(x), slots.rows);
  }

  addExperts(out: Activation, x: Activation, routing: Routing): void {
    shapes.checkAddExperts(out, x, routing);
    addExperts(this.#in(own(out).block.home), own(out), own(x), routing as HostRouting);
  }

  async read(activation: Activation): Promise<Float32Array> {
    const { rows, cols } = activation;
    const source = own(activation);
    const arena = source.block.home;
    arena.run();
    const offset = source.readIn(arena);
    const values = new Float32Array(rows * cols);
    for (let r = 0; r < rows; r++) values.set(arena.floats(offset + r * source.stride * 4, cols), r * cols);
    return values;
  }

  async topK(activation: Activation, k: number): Promise<TopK[]> {
    shapes.checkTopK(activation, k);
    const source = own(activation);
    const arena = this.#in(source.block.home);
    const { rows, cols } = activation;
    const results = arena.scratch(rows * k * 8);
    arena.record("topK", { x: source.readIn(arena), xStride: source.stride, rows, cols, k, results });
    arena.run();
    const floats = arena.floats(results, rows * k * 2).slice();
    const words = new Uint32Array(floats.buffer);
    return Array.from({ length: rows }, (_, r) => ({
      ids: Uint32Array.from({ length: k }, (_, i) => words[(r * k + i) * 2]),
      values: Float32Array.from({ length: k }, (_, i) => floats[(r * k + i) * 2 + 1]),
    }));
  }

  async flush(): Promise<void> {
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
    const size = Math.floor(byteLength / (128 * this.#pool.threads)) * 128 * this.#pool.threads;
    const arena = this.#in(await this.#arenaFor(size));
    const offset = arena.allocate(size);
    try {
      // Untouched pages all map to one page of zeros, which the cache holds.
      const bytes = arena.bytes(offset, size);
      for (let i = 0; i < size; i += 4096) bytes[i] = 1;
      const sink = arena.scratch(16 * this.#pool.threads);
      let best = 0;
      for (let i = 0; i < repeats; i++) {
        const start = performance.now();
        arena.record("readBytes", { start: offset, byteLength: size, sink });
        arena.run();
        best = Math.max(best, (size * 1000) / (performance.now() - start));
      }
      return best;
    } finally {
      arena.release(offset);
    }
  }

  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#caches.clear();
    this.#weightBytes = 0;
    this.#activationBytes = 0;
    this.#pool[Symbol.dispose]();
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
    const { memoryLimit, mayBlock } = this.#settings;
    if (byteLength > memoryLimit - layout.heapStart - 2 * 65536) {
      throw new DeviceError(
        `a matrix that needs ${byteLength} bytes does not fit a WebAssembly memory of ${memoryLimit}`,
      );
    }
    const next = await Arena.create(this.#arenas.length, this.#kernels, this.#pool, memoryLimit, mayBlock);
    this.#arenas.push(next);
    return next;
  }

  #alive(): void {
    if (this.#disposed) throw new UsageError("the backend was disposed");
  }

  #ownMatrix(matrix: Matrix): WasmMatrix {
    if ("arena" in matrix && this.#arenas.includes(matrix.arena as Arena)) return matrix as WasmMatrix;
    throw new UsageError("a matrix of another backend");
  }

  #ownCache(cache: KvCache): WasmKvCache {
    if (cache instanceof WasmKvCache && this.#caches.has(cache)) return cache;
    throw new UsageError("a cache that was disposed or belongs to another backend");
  }
}
