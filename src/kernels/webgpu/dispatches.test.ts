import { beforeEach, describe, expect, test } from "vitest";
import type { GpuMemory } from "./device.js";
import { Dispatches } from "./dispatches.js";
import { kernel, paramBytes, read, readWrite } from "./kernel.js";

const add = kernel({
  name: "add",
  params: { count: "u32", scale: "f32" },
  tableLength: 1,
  buffers: { x: read(), y: readWrite() },
  code: "",
});

/** A device that only remembers: groups that were made, and bytes that were sent. */
class RecordedGpu {
  groups: GPUBindGroupDescriptor[] = [];
  sent: { offset: number; words: number[] }[] = [];
  readonly queue = {
    writeBuffer: (_: GPUBuffer, offset: number, bytes: ArrayBuffer, from: number, length: number) =>
      void this.sent.push({ offset, words: [...new Uint32Array(bytes.slice(from, from + length))] }),
  };
  createBuffer = () => ({});
  createBindGroupLayout = () => ({});
  createPipelineLayout = () => ({});
  createShaderModule = () => ({});
  createComputePipeline = () => ({});
  createBindGroup(descriptor: GPUBindGroupDescriptor) {
    this.groups.push(descriptor);
    return { number: this.groups.length };
  }
}

const memory = (id: number) => ({ id, buffer: {}, byteLength: 16 }) as GpuMemory;
const f32Bits = (value: number) => new Uint32Array(Float32Array.of(value).buffer)[0];

describe("dispatches", () => {
  let gpu: RecordedGpu;
  let dispatches: Dispatches;
  const [x, y, z] = [memory(1), memory(2), memory(3)];
  const next = (buffers: GpuMemory[], count: number, table: number[] = []) =>
    dispatches.next(add, buffers, { count, scale: 0.5 }, table);
  beforeEach(() => {
    gpu = new RecordedGpu();
    dispatches = new Dispatches(gpu as unknown as GPUDevice, 0);
  });

  test("one that was there before the last submit is found again, and only what changed is sent", () => {
    const first = [next([x, y], 7, [3, 4]), next([y, z], 8)];
    dispatches.submitting();
    expect(gpu.sent).toHaveLength(1);
    const { words } = gpu.sent[0];
    expect(words.slice(0, 6)).toEqual([7, f32Bits(0.5), 0, 0, 3, 4]);
    expect(words.slice(paramBytes / 4, paramBytes / 4 + 2)).toEqual([8, f32Bits(0.5)]);

    const second = [next([x, y], 7, [3, 4]), next([y, z], 9)];
    dispatches.submitting();
    expect(second).toEqual(first);
    expect(gpu.groups).toHaveLength(2);
    expect(gpu.sent).toHaveLength(2);
    expect(gpu.sent[1].offset).toBe(paramBytes);
    expect(gpu.sent[1].words).toHaveLength(paramBytes / 4);
    expect(gpu.sent[1].words[0]).toBe(9);
    next([x, y], 7, [3, 4]);
    dispatches.submitting();
    expect(gpu.sent).toHaveLength(2);
  });

  test("the same kernel with the same buffers, twice before a submit, has two sets of parameters", () => {
    const once = next([x, y], 1);
    const again = next([x, y], 2);
    expect(again.parameters).not.toEqual(once.parameters);
    expect(again.bindGroup).not.toEqual(once.bindGroup);
    dispatches.submitting();
    expect([gpu.sent[0].words[0], gpu.sent[0].words[paramBytes / 4]]).toEqual([1, 2]);
  });

  test("a buffer that two slots share is bound once", () => {
    next([x, x], 1);
    expect([...gpu.groups[0].entries].map(({ binding }) => binding)).toEqual([0, 1]);
  });

  test.each([
    ["first", [x, y]],
    ["last", [y, x]],
  ])("those of a freed buffer in the %s slot are forgotten, and their places taken again", (_, buffers) => {
    const { parameters } = next(buffers, 1);
    next([y, z], 1);
    dispatches.submitting();
    dispatches.forget(x);
    expect(next([memory(4), y], 2).parameters).toEqual(parameters);
    next([y, z], 1);
    expect(gpu.groups).toHaveLength(3);
    next(buffers, 1);
    expect(gpu.groups).toHaveLength(4);
  });
});
