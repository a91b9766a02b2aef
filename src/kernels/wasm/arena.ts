import { DeviceError } from "../../core/index.js";
import { encode, encodedWords, type Operands } from "../program/encode.js";
import { type OperationName, programEnd } from "../program/records.js";
import { Heap } from "./heap.js";
import { instantiate, type KernelExports, type Kernels, newMemory } from "./kernels.js";
import { controlCounters, heapStart, maxThreads, programBytes, programStart } from "./layout.js";
import type { Pool } from "./pool.js";
import { writeTables } from "./tables.js";

const pageBytes = 65536;

/**
 * How long a thread looks at a flag before it goes to sleep. Waking a sleeper takes 50 µs and more, which is the time of
 * whole operations; longer gaps mean that a thread was not scheduled, and then looking only takes its processor away.
 */
const spinMs = 0.3;

/** Milliseconds of one look, which depends on engine and machine. */
function lookMs(kernels: KernelExports): number {
  const looks = 200_000;
  kernels.spin(looks);
  const start = performance.now();
  kernels.spin(looks);
  return Math.max(performance.now() - start, 0.01) / looks;
}

/** One WebAssembly memory with its share of the weights, and the program being recorded for it. */
export class Arena {
  readonly index: number;
  readonly #memory: WebAssembly.Memory;
  readonly #kernels: KernelExports;
  readonly #pool: Pool;
  readonly #heap = new Heap(heapStart);
  readonly #limit: number;
  #bytes!: Uint8Array<ArrayBufferLike>;
  #words!: Int32Array;
  #floats!: Float32Array;
  /** Next free word of the program. */
  #at = programStart / 4;
  #scratch = { offset: 0, byteLength: 0 };

  private constructor(index: number, memory: WebAssembly.Memory, kernels: KernelExports, pool: Pool, limit: number) {
    this.index = index;
    this.#memory = memory;
    this.#kernels = kernels;
    this.#pool = pool;
    this.#limit = limit;
    this.#refresh();
    writeTables(new Uint8Array(memory.buffer));
  }

  /**
   * @param limit bytes it may grow to
   * @throws DeviceError when the machine will not give that address space
   */
  static async create(index: number, kernels: Kernels, pool: Pool, limit: number, mayBlock: boolean): Promise<Arena> {
    const pages = Math.ceil((heapStart + pageBytes) / pageBytes);
    let memory: WebAssembly.Memory;
    try {
      memory = newMemory(pages, Math.max(pages, Math.floor(limit / pageBytes)));
    } catch (cause) {
      throw new DeviceError(`no WebAssembly memory of up to ${limit} bytes could be reserved`, { cause });
    }
    const instance = instantiate(kernels.module, memory);
    const spins = pool.threads === 1 ? 0 : Math.ceil(spinMs / lookMs(instance));
    instance.configure(pool.threads, mayBlock ? 1 : 0, spins);
    await pool.addMemory(kernels.module, memory, instance, spins);
    return new Arena(index, memory, instance, pool, limit);
  }

  get byteLength(): number {
    return this.#bytes.byteLength;
  }

  fits(byteLength: number): boolean {
    return this.#heap.fits(byteLength, this.#limit - pageBytes);
  }

  /** @throws DeviceError when the machine has no more memory */
  allocate(byteLength: number): number {
    if (!this.fits(byteLength))
      throw new DeviceError(`${byteLength} bytes do not fit a WebAssembly memory of ${this.#limit}`);
    const offset = this.#heap.allocate(byteLength);
    const missing = this.#heap.top + 256 - this.#bytes.byteLength;
    if (missing > 0) {
      try {
        this.#memory.grow(Math.ceil(missing / pageBytes));
      } catch (cause) {
        this.#heap.release(offset);
        throw new DeviceError(`the machine has no ${byteLength} bytes of memory left`, { cause });
      }
      this.#refresh();
    }
    return offset;
  }

  release(offset: number): void {
    this.#heap.release(offset);
  }

  /** Memory that one operation may use until the next is recorded; may run what is recorded to grow. */
  scratch(byteLength: number): number {
    if (byteLength > this.#scratch.byteLength) {
      this.run();
      if (this.#scratch.byteLength > 0) this.release(this.#scratch.offset);
      this.#scratch = { offset: this.allocate(byteLength), byteLength };
    }
    return this.#scratch.offset;
  }

  bytes(offset: number, byteLength: number): Uint8Array<ArrayBufferLike> {
    return this.#bytes.subarray(offset, offset + byteLength);
  }

  floats(offset: number, count: number): Float32Array {
    return this.#floats.subarray(offset / 4, offset / 4 + count);
  }

  /** Appends an operation. */
  record<O extends OperationName>(op: O, operands: Operands<O>): void {
    if ((this.#at + encodedWords(op, operands) + 1) * 4 > programStart + programBytes) this.run();
    this.#at = encode(op, operands, this.#words, this.#floats, this.#at);
  }

  /** Runs what was recorded on all threads, the calling one included, and returns when it is done. */
  run(): void {
    if (this.#at === programStart / 4) return;
    this.#words[this.#at] = programEnd;
    this.#at = programStart / 4;
    this.#pool.wake(this.index);
    this.#kernels.run(0);
  }

  /** Sums what the threads counted and sets it to 0. */
  takeCounters(): { bytes: number; inputs: number; skipped: number } {
    const total = { bytes: 0, inputs: 0, skipped: 0 };
    const counters = new Float64Array(this.#memory.buffer, controlCounters, maxThreads * 8);
    for (let t = 0; t < maxThreads * 8; t += 8) {
      total.bytes += counters[t];
      total.inputs += counters[t + 1];
      total.skipped += counters[t + 2];
    }
    counters.fill(0);
    return total;
  }

  #refresh(): void {
    this.#bytes = new Uint8Array(this.#memory.buffer);
    this.#words = new Int32Array(this.#memory.buffer);
    this.#floats = new Float32Array(this.#memory.buffer);
  }
}
