import { afterEach, expect, test, vi } from "vitest";
import { DeviceError } from "../../core/index.js";
import type { ProgramBackend } from "../program/programBackend.js";
import { openBackend, openDevice } from "../table.js";
import { createBackend } from "./index.js";

/** What is put in place of a piece of the workers' program. */
let sabotage: readonly [piece: string, instead: string] | undefined;
const workers: { terminate(): Promise<number> }[] = [];

vi.mock(import("node:worker_threads"), async (original) => {
  const real = await original();
  class Worker extends real.Worker {
    constructor(program: string, options: object) {
      super(sabotage === undefined ? program : program.replace(...sabotage), options);
      workers.push(this);
    }
  }
  return { ...real, default: real, Worker } as typeof real;
});

afterEach(() => {
  sabotage = undefined;
  workers.length = 0;
});

const outOfMemory = "(() => { throw new RangeError('WebAssembly.Instance(): Out of memory'); })()";

/** A product over enough rows that every thread has a share of it. */
async function multiply(backend: ProgramBackend): Promise<Float32Array> {
  const [rows, cols] = [64, 32];
  const read = async (start: number, count: number, into: Uint8Array) =>
    into.set(new Uint8Array(new Float32Array(rows * cols).fill(1).buffer, start * cols * 4, count * cols * 4));
  const w = await backend.loadMatrix([{ name: "w", rows, cols, dtype: "F32", read }], "f32");
  const [x, y] = [backend.allocate(1, cols), backend.allocate(1, rows)];
  backend.write(x, new Float32Array(cols).fill(1));
  backend.linear(y, x, w);
  return backend.read(y);
}

test.each([
  ["cannot take the memory", ["new WebAssembly.Instance", outOfMemory] as const],
  ["does not even begin", ["const instances", "throw new Error('blocked'); const instances"] as const],
  ["leaves", ["const instances", "process.exit(3); const instances"] as const],
])("a thread that %s: one thread and a note where none were asked for, else a DeviceError", async (_, piece) => {
  sabotage = piece;
  await expect(createBackend({ threads: 3 })).rejects.toThrow(DeviceError);
  using backend = await createBackend();
  expect(backend.info.threads).toBe(1);
  if (workers.length > 2) expect(backend.info.description).toMatch(/1 thread \(more could not be started: .+\)/);
  expect((await multiply(backend))[63]).toBe(32);
  // Where a backend is chosen, one thread comes before plain TypeScript.
  for (const open of [() => openDevice("cpu", { threads: 3 }), () => openBackend(undefined, { threads: 3 })]) {
    using chosen = await open();
    expect(chosen.info).toMatchObject({ id: "wasm", threads: 1 });
    expect(chosen.info.description).toMatch(/1 thread \(more could not be started: .+\)/);
  }
});

test("a thread that fails in an operation ends the call and every later one with a DeviceError, and nothing hangs", async () => {
  sabotage = ["instance.kernels.run(index)", "(() => { throw new Error('trap'); })()"];
  const backend = await createBackend({ threads: 3 });
  await expect(multiply(backend)).rejects.toThrow(DeviceError);
  await expect(multiply(backend)).rejects.toThrow("has ended");
  expect(() => backend.allocate(1, 4)).toThrow(DeviceError);
  await expect(backend.flush()).rejects.toThrow(DeviceError);
  backend[Symbol.dispose]();
});

test("a thread that ends between two calls: DeviceError for the next", async () => {
  using backend = await createBackend({ threads: 3 });
  expect((await multiply(backend))[0]).toBe(32);
  await workers[1].terminate();
  await expect(multiply(backend)).rejects.toThrow(DeviceError);
});

test("a thread that cannot take a second memory: DeviceError, and the memory before it can be disposed of", async () => {
  using backend = await createBackend({ threads: 2, memoryLimit: 8 << 20 });
  expect((await multiply(backend))[0]).toBe(32);
  await workers[0].terminate();
  const big = { name: "w", rows: 1024, cols: 1536, dtype: "F32" as const, read: async () => {} };
  await expect(backend.loadMatrix([big], "f32")).rejects.toThrow(DeviceError);
});
