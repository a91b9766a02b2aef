import { DeviceError } from "../../core/index.js";
import { encode, encodedWords, type Operands } from "./encode.js";
import { checkExtents } from "./extents.js";
import { Heap } from "./heap.js";
import { controlCounters, heapStart, maxThreads, programBytes, programStart } from "./layout.js";
import type { Machine, MachineMemory } from "./machine.js";
import { type OperationName, programEnd } from "./records.js";
import { writeTables } from "./tables.js";

/** What `fits` keeps free at the end of a memory. */
const marginBytes = 65536;

/** One memory with its share of the weights, and the program being recorded for it. */
export class Arena {
  readonly #machine: Machine;
  readonly #memory: MachineMemory;
  readonly #heap = new Heap(heapStart);
  readonly #limit: number;
  #bytes!: Uint8Array<ArrayBufferLike>;
  #words!: Int32Array;
  #floats!: Float32Array;
  /** Next free word of the program. */
  #at = programStart / 4;
  #scratch = { offset: 0, byteLength: 0 };

  private constructor(memory: MachineMemory, machine: Machine) {
    this.#machine = machine;
    this.#memory = memory;
    this.#limit = machine.memoryLimit;
    this.#refresh();
    writeTables(this.#bytes);
  }

  /** @throws DeviceError when the machine will not give that address space */
  static async create(machine: Machine): Promise<Arena> {
    return new Arena(await machine.openMemory(), machine);
  }

  get byteLength(): number {
    return this.#bytes.byteLength;
  }

  fits(byteLength: number): boolean {
    return this.#heap.fits(byteLength, this.#limit - marginBytes);
  }

  /** @throws DeviceError when the machine has no more memory */
  allocate(byteLength: number): number {
    if (!this.fits(byteLength)) throw new DeviceError(`${byteLength} bytes do not fit a memory of ${this.#limit}`);
    const offset = this.#heap.allocate(byteLength);
    const missing = this.#heap.top + 256 - this.#bytes.byteLength;
    if (missing > 0) {
      try {
        this.#memory.grow(missing);
      } catch (cause) {
        this.#heap.release(offset);
        throw new DeviceError(`the machine has no ${byteLength} bytes of memory left`, { cause });
      }
      this.#refresh();
    }
    return offset;
  }

  /** As `allocate`, for what will be written whole and read often. */
  allocateFilled(byteLength: number): number {
    const offset = this.allocate(byteLength);
    this.#memory.fills?.(offset, byteLength);
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

  words(offset: number, count: number): Int32Array {
    return this.#words.subarray(offset / 4, offset / 4 + count);
  }

  /** Appends an operation. @throws RangeError when a native kernel would reach beyond this memory */
  record<O extends OperationName>(op: O, operands: Operands<O>): void {
    checkExtents(op, operands, this.byteLength);
    if ((this.#at + encodedWords(op, operands) + 1) * 4 > programStart + programBytes) this.run();
    this.#at = encode(op, operands, this.#words, this.#floats, this.#at);
  }

  /** Appends a step of a module with other codes: what it reads has been checked. */
  append(code: number, operands: Int32Array): void {
    if ((this.#at + operands.length + 3) * 4 > programStart + programBytes) this.run();
    this.#words[this.#at] = code;
    this.#words[this.#at + 1] = operands.length;
    this.#words.set(operands, this.#at + 2);
    this.#at += 2 + operands.length;
  }

  /** Runs what is recorded, so that memory can be released; nothing is left to run where the threads have failed. */
  settle(): void {
    if (!this.#machine.failed) this.run();
  }

  /**
   * Runs what was recorded on all threads, the calling one included, and returns when it is done.
   * @throws DeviceError when a thread fails or has failed
   */
  run(): void {
    if (this.#at === programStart / 4) return;
    this.#words[this.#at] = programEnd;
    this.#at = programStart / 4;
    this.#machine.check();
    this.#memory.run();
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
    const { buffer } = this.#memory;
    this.#bytes = new Uint8Array(buffer);
    this.#words = new Int32Array(buffer);
    this.#floats = new Float32Array(buffer);
  }
}
