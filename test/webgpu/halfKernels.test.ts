import { expect, it } from "vitest";
import { create } from "webgpu";
import { gpuFormat } from "../../src/kernels/webgpu/formats.js";
import { type Kernel, wgsl } from "../../src/kernels/webgpu/kernel.js";
import { attentionTensor } from "../../src/kernels/webgpu/wgsl/attentionTensor.js";
import { matmulTensor } from "../../src/kernels/webgpu/wgsl/matmulTensor.js";
import { expertMatvec, matvec } from "../../src/kernels/webgpu/wgsl/matvec.js";

// No software GPU has matrix units, or f16: on a GPU that has them a check decides whether what runs there is used. A device of
// Dawn that does nothing still reads WGSL, with every extension.
const gpu = create(["backend=null", "enable-dawn-features=allow_unsafe_apis"]);
const adapter = await gpu.requestAdapter();
const features = ["subgroups", "shader-f16", "chromium-experimental-subgroup-matrix"] as GPUFeatureName[];
const device = await adapter?.requestDevice({ requiredFeatures: features });
// Held for as long as the process, in which other files are tested too: freed in any other order than the last one first,
// they end it.
Object.assign(globalThis, { [Symbol("Dawn's null device")]: [gpu, adapter, device] });

const units = { M: 16, N: 16, K: 16 };
const eights = { M: 8, N: 8, K: 8 };
const tiles = [
  { tokens: 64, teamsDown: 2, teamsAcross: 2, groupsAtOnce: 1, halves: false, workgroups: 0 },
  { tokens: 128, teamsDown: 2, teamsAcross: 2, groupsAtOnce: 2, halves: true, workgroups: 128 },
];
const kernels: Kernel[] = [
  ...(["bf16", "q8", "q4"] as const).flatMap((format) =>
    tiles.map((tile) => matmulTensor(gpuFormat(format), format === "bf16" ? eights : units, tile)),
  ),
  ...[true, false].flatMap((sparse) => {
    const tuning = {
      subgroups32: true,
      joinBySubgroups: true,
      threads: 256,
      sparseColumns: 2048,
      unroll: 4,
      byHalves: true,
      groupsAside: 2,
    };
    return (["q8", "q4"] as const).flatMap((id) => [
      matvec(gpuFormat(id), sparse, tuning, "silu"),
      expertMatvec(gpuFormat(id), sparse, tuning),
    ]);
  }),
  attentionTensor(units, { keyDim: 128, valueDim: 128, keys: 64 }, false),
  attentionTensor(units, { keyDim: 192, valueDim: 128, keys: 32 }, true),
  attentionTensor(eights, { keyDim: 64, valueDim: 64, keys: 64 }, false),
];

it.each(kernels.map((kernel) => [kernel.name, kernel] as const))("%s is valid WGSL", async (_, kernel) => {
  const code = wgsl(
    kernel,
    Object.keys(kernel.buffers).map((_, i) => i),
  );
  const validated = async (text: string) => {
    device!.pushErrorScope("validation");
    device!.createShaderModule({ code: text });
    return (await device!.popErrorScope())?.message;
  };
  expect(await validated(code)).toBeUndefined();
  expect(await validated(code.replace("workgroupBarrier", "sideways"))).toContain("sideways");
});
