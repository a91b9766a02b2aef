import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { chooseAttention } from "../../src/kernels/webgpu/attentionCheck.js";
import { WebGpuBackend } from "../../src/kernels/webgpu/backend.js";
import { Device } from "../../src/kernels/webgpu/device.js";
import type { Dispatches } from "../../src/kernels/webgpu/dispatches.js";
import type { GpuKvCache } from "../../src/kernels/webgpu/storage.js";
import { normals, upload } from "../contract/harness.js";
import { useSoftwareGpu } from "../support/softwareGpu.js";

await useSoftwareGpu();
const unavailable = await Device.open().then(
  (device) => void device[Symbol.dispose](),
  (error: Error) => error.message,
);

describe.skipIf(unavailable !== undefined)(
  `attention on WebGPU${unavailable === undefined ? "" : `: ${unavailable}`}`,
  () => {
    let device: Device;
    let backend: WebGpuBackend;
    beforeEach(async () => {
      device = await Device.open();
      backend = new WebGpuBackend(device);
    });
    afterEach(() => backend[Symbol.dispose]());

    /** What runs from now on; a kernel whose name begins with `broken` gets its WGSL changed. */
    const watched = (broken?: { kernel: string; from: string; to: string }) => {
      const names: string[] = [];
      const { dispatches } = device;
      const next = dispatches.next.bind(dispatches);
      const watching: Dispatches["next"] = (call) => {
        const { kernel } = call;
        names.push(kernel.name);
        if (broken === undefined || !kernel.name.startsWith(broken.kernel)) return next(call);
        const code = kernel.code.replaceAll(broken.from, broken.to);
        expect(code).not.toBe(kernel.code);
        return next({ ...call, kernel: { ...kernel, name: `${kernel.name} broken`, code } });
      };
      Object.defineProperty(dispatches, "next", { value: watching });
      return names;
    };

    it("a token is attended to by subgroups once they were seen to be right", async () => {
      await chooseAttention(backend, device);
      expect(backend.attend.token.isOn).toBe(true);
      expect(backend.problems).toEqual([]);

      const names = watched();
      using cache = backend.createKvCache({ layers: [{ heads: 2, key: 16, value: 16 }], slots: 40 });
      const rows = upload(backend, 40, 32, normals(1, 40 * 32));
      backend.appendKv(cache, 0, rows, rows, 0);
      const out = backend.allocate(1, 64);
      backend.attention(out, upload(backend, 1, 64, normals(2, 64)), cache, 0, {
        queryHeads: 4,
        scale: 0.25,
        start: 39,
      });
      expect((await backend.read(out)).every(Number.isFinite)).toBe(true);
      expect(names.filter((name) => name.startsWith("attention"))).toEqual([
        expect.stringMatching(/^attentionToken 16 16 2 /),
      ]);
    });

    it.each([
      ["sums that are not rescaled", "acc0_0 *= shrink;", "acc0_0 *= 1.0;"],
      ["products that are not added up", "sum += subgroupShuffleXor(sum, 1u);", ""],
      ["a newest key that is not rotated", "return four(head + quad * 4u) * c", "return four(head + quad * 4u)"],
    ])("%s are found out, and what was general before stays so", async (_, from, to) => {
      watched({
        kernel: from.startsWith("return") ? "attentionToken 64 64 2 4 32 2 joined rotated" : "attentionToken",
        from,
        to,
      });
      await chooseAttention(backend, device);
      expect(backend.attend.token.isOn).toBe(false);
      expect(backend.problems).toEqual([expect.stringMatching(/^attention by subgroups is off by /)]);
      expect(backend.info.description).toContain("attention by subgroups is off by");
    });

    it.each([1, 3, 4])(
      "as a real GPU does it, gives what the general kernels give for %i heads of a key head",
      async (group) => {
        Object.defineProperty(device, "isSoftware", { value: false });
        const [heads, width] = [2, 32];
        using cache = backend.createKvCache({ layers: [{ heads, key: width, value: width }], slots: 700 });
        const rows = upload(backend, 700, heads * width, normals(1, 700 * heads * width));
        backend.appendKv(cache, 0, rows, rows, 0);
        const out = backend.allocate(1, group * heads * width);
        // Every other head is so sure that another's maximum would make its sum infinite.
        const queries = normals(2, group * heads * width).map(
          (value, i) => value * (Math.floor(i / width) % 2 ? 60 : 1),
        );
        const q = upload(backend, 1, queries.length, queries);
        const names = watched();
        const attended = async (bySubgroups: boolean, start: number) => {
          backend.attend.token.isOn = bySubgroups;
          names.length = 0;
          backend.attention(out, q, cache, 0, { queryHeads: group * heads, scale: 0.2, start });
          expect(names).toEqual([expect.stringContaining(bySubgroups ? "attentionToken" : "attention ")]);
          return backend.read(out);
        };
        // One run of keys, and two.
        for (const start of [40, 699]) {
          const expected = await attended(false, start);
          const actual = await attended(true, start);
          for (const [i, value] of actual.entries()) expect(value).toBeCloseTo(expected[i], 4);
        }
        expect(names[0]).toMatch(/joined/);
      },
    );

    it("a kernel that does not compile is left out, and the backend serves", async () => {
      watched({ kernel: "attentionToken", from: "workgroupBarrier();", to: "nothingOfTheKind();" });
      await chooseAttention(backend, device);
      expect(backend.attend.token.isOn).toBe(false);
      expect(backend.problems).toEqual([expect.stringMatching(/^attention by subgroups: /)]);
      const x = upload(backend, 1, 4, normals(3, 4));
      expect(await backend.read(x)).toEqual(normals(3, 4));
    });

    describe("memory of a cache", () => {
      const created = (slots: number) =>
        backend.createKvCache({ layers: [{ heads: 1, key: 8, value: 8 }], slots }) as GpuKvCache;
      const filled = (slots: number) => {
        const cache = created(slots);
        const rows = upload(backend, slots, 8, normals(slots, slots * 8));
        backend.appendKv(cache, 0, rows, rows, 0);
        const ids = cache.entries.map(({ id }) => id);
        cache[Symbol.dispose]();
        return ids;
      };

      it("is the next one's, with zeros", async () => {
        const ids = filled(40);
        using next = created(30);
        expect(next.entries.map(({ id }) => id)).toEqual(ids);
        const keys = backend.allocate(30, 8);
        backend.readKeys(keys, next, 0, 0);
        expect(await backend.read(keys)).toEqual(new Float32Array(240));
      });

      it("is not given out by a backend that was disposed of", async () => {
        filled(40);
        await backend.flush();
        backend[Symbol.dispose]();
        expect(() => created(40)).toThrow("the backend was disposed");
      });

      it.each([
        ["smaller than half", 19],
        ["larger", 41],
      ])("is freed where the next one is %s", (_, slots) => {
        const ids = filled(40);
        using next = created(slots);
        expect(next.entries.some(({ id }) => ids.includes(id))).toBe(false);
        using another = created(40);
        expect(another.entries.some(({ id }) => ids.includes(id))).toBe(false);
      });
    });
  },
);
