import { beforeEach, describe, expect, test } from "vitest";
import type { GpuMemory } from "./device.js";
import { type Call, Dispatches } from "./dispatches.js";
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
    dispatches.next({ kernel: add, slots: buffers, params: { count, scale: 0.5 }, grid: [1], table });
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

  describe("a call that is made again", () => {
    let call: Call & { table: number[]; version: number };
    const made = () => {
      const dispatch = dispatches.next(call);
      dispatches.submitting();
      return dispatch;
    };
    beforeEach(() => {
      call = { kernel: add, slots: [x, y], params: { count: 7, scale: 0.5 }, grid: [1], table: [3], version: 0 };
    });

    test("has its dispatch again, and is sent again when its version has changed", () => {
      const first = made();
      expect(made()).toBe(first);
      expect(gpu.sent).toHaveLength(1);
      call.table[0] = 4;
      call.version++;
      expect(made()).toBe(first);
      expect(gpu.sent).toHaveLength(2);
      expect(gpu.sent[1].words[4]).toBe(4);
    });

    test("with another version before a submit has both", () => {
      const first = dispatches.next(call);
      call.table[0] = 4;
      call.version++;
      const second = dispatches.next(call);
      expect(second.parameters).not.toEqual(first.parameters);
      dispatches.submitting();
      expect([gpu.sent[0].words[4], gpu.sent[0].words[paramBytes / 4 + 4]]).toEqual([3, 4]);
      expect(made()).toBe(first);
      expect(gpu.sent[1].words[4]).toBe(4);
    });

    test("after another call with its kernel and buffers is sent again", () => {
      made();
      next([x, y], 8);
      dispatches.submitting();
      made();
      expect(gpu.sent.map(({ words }) => words[0])).toEqual([7, 8, 7]);
    });

    test("does not outlive the dispatches of a freed buffer", () => {
      const { bindGroup } = made();
      dispatches.forget(x);
      expect(made().bindGroup).not.toEqual(bindGroup);
      expect(gpu.groups).toHaveLength(2);
    });
  });
});
