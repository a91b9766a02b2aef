import { describe, expect, test } from "vitest";
import type { RecipeInput } from "../../src/compress/index.js";
import { compressionOf } from "../../src/io/index.js";
import { openDevice } from "../../src/kernels/internal.js";
import { planCompression } from "../../src/pipeline/index.js";
import { compress, jobOptions, logits, relativeDifference } from "../compress/support.js";
import { MemoryCheckpoint } from "../model/memoryCheckpoint.js";
import { useSoftwareGpu } from "../support/softwareGpu.js";

await useSoftwareGpu();
const unavailable = await openDevice("webgpu").then(
  (backend) => void backend[Symbol.dispose](),
  (error: Error) => error.message,
);

const sparsegpt: RecipeInput["stages"] = [{ type: "prune", method: "sparsegpt", pattern: "2:4" }];
const on = (device: "cpu" | "webgpu") => ({ backend: undefined, device, threads: 1 });

describe.skipIf(unavailable !== undefined)(
  `compression on WebGPU${unavailable === undefined ? "" : `: ${unavailable}`}`,
  () => {
    test.each<[string, RecipeInput["stages"]]>([
      ["SparseGPT", sparsegpt],
      [
        "neurons of all blocks",
        [
          {
            type: "prune",
            method: "wanda",
            pattern: { type: "neurons", sparsity: 0.25, scope: "global" },
            multipleOf: 4,
          },
        ],
      ],
      ["SVD-LLM", [{ type: "lowRank", method: "svdllm", keepRatio: 0.5 }]],
    ])("%s gives what it gives on the CPU", async (_name, stages) => {
      const checkpoint = await MemoryCheckpoint.golden("llama");
      const [cpu, gpu] = [
        await compress(checkpoint, { stages, ...on("cpu") }),
        await compress(checkpoint, { stages, ...on("webgpu") }),
      ];
      // Not weights: factors may differ in their signs.
      expect(relativeDifference(await logits(gpu.opened), await logits(cpu.opened))).toBeLessThan(1e-4);
      expect(relativeDifference(await logits(gpu.opened), await logits(checkpoint))).toBeGreaterThan(0.01);
    });

    test("the device is on record, and a job begun on one is not finished on another", async () => {
      const checkpoint = await MemoryCheckpoint.golden("llama");
      const files = new Map<string, Uint8Array>();
      const { artifact } = await compress(checkpoint, { stages: sparsegpt, ...on("webgpu") }, files);
      expect(compressionOf(artifact)!.calibration!.arithmetic).toMatch(/^WebGPU on /);
      const other = compress(checkpoint, { stages: sparsegpt, ...on("cpu") }, files);
      await expect(other).rejects.toThrow(/holds another job: .*device/);
    });

    test("where nothing is measured the device does not matter", async () => {
      const checkpoint = await MemoryCheckpoint.golden("llama");
      const stages: RecipeInput["stages"] = [{ type: "prune", method: "magnitude", pattern: "2:4" }];
      const plans = await Promise.all(
        (["cpu", "webgpu"] as const).map((device) =>
          planCompression(checkpoint, { ...jobOptions({ stages }), ...on(device), calibration: undefined }),
        ),
      );
      expect(plans.map(({ backend }) => backend)).toEqual([undefined, undefined]);
      expect(plans[1].job).toBe(plans[0].job);
    });
  },
);
