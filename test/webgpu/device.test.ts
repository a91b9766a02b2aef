import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openDevice } from "../../src/kernels/internal.js";
import { command, ensureInstalled, root } from "../support/rarefy.js";
import { useSoftwareGpu } from "../support/softwareGpu.js";

useSoftwareGpu();
const unavailable = await openDevice("webgpu").then(
  (backend) => void backend[Symbol.dispose](),
  (error: Error) => error.message,
);

const model = "models/tiny-6m";
const scratch = mkdtempSync(join(tmpdir(), "rarefy-device-"));
beforeAll(ensureInstalled);
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** Runs the command line; its document, or the error it ended in. */
function rarefy(args: readonly string[], options: { node?: string[]; env?: Record<string, string> } = {}) {
  const child = spawnSync(
    process.execPath,
    [...(options.node ?? []), command, ...args, "--json", "--quiet", "--threads", "1"],
    { cwd: root, encoding: "utf8", env: { ...process.env, ...options.env } },
  );
  return child.status === 0 ? JSON.parse(child.stdout) : { status: child.status, error: child.stderr };
}

const onBoth = (args: (device: string) => string[]) =>
  ["cpu", "webgpu"].map((device) => rarefy([...args(device), "--device", device]));
const run = (device: string) => ["run", model, "--prompt", "It was a dark", "--max-tokens", "6", "--device", device];

describe.skipIf(unavailable !== undefined)(
  `--device webgpu${unavailable === undefined ? "" : `: ${unavailable}`}`,
  () => {
    test("run writes what the CPU writes", () => {
      const [cpu, gpu] = onBoth(run);
      expect(cpu.tokenIds).toHaveLength(6);
      expect(gpu.tokenIds).toEqual(cpu.tokenIds);
    });

    test("calibrate finds the thresholds of the CPU, and eval its perplexity, dense and sparse", () => {
      const windows = (text: string) => ["--text", `models/text/${text}`, "--window", "32", "--weights", "f32"];
      const output = (device: string) => join(scratch, device);
      onBoth((device) => [
        "calibrate",
        model,
        ...windows("calib.txt"),
        "--calibration-windows",
        "2",
        "-o",
        output(device),
      ]);
      const [cpuLayers, gpuLayers] = ["cpu", "webgpu"].map(
        (device) => JSON.parse(readFileSync(join(output(device), "rarefy.json"), "utf8")).activationSparsity.layers,
      );
      expect(gpuLayers).toHaveLength(6);
      for (const [layer, { maps }] of gpuLayers.entries()) {
        for (const [name, { threshold }] of Object.entries<{ threshold: number }>(maps)) {
          expect(threshold / cpuLayers[layer].maps[name].threshold).toBeCloseTo(1, 2);
        }
      }

      // Another text: on its own, inputs lie exactly at the thresholds, and rounding decides on which side.
      const evaluation = [...windows("books-eval.txt"), "--max-windows", "2", "--against", "dense"];
      const [cpu, gpu] = onBoth(() => ["eval", output("cpu"), ...evaluation]);
      expect(gpu.perplexity).not.toBe(gpu.against.perplexity);
      expect(gpu.perplexity / cpu.perplexity).toBeCloseTo(1, 5);
      expect(gpu.against.perplexity / cpu.against.perplexity).toBeCloseTo(1, 5);
    });

    test("prune leaves what it leaves on the CPU, and says where it measured", () => {
      const [cpu, gpu] = onBoth((device) => [
        ...["prune", model, "--calib", "models/text/calib.txt", "--calibration-windows", "2", "--window", "32"],
        ...["--text", "models/text/books-eval.txt", "--max-windows", "2", "-o", join(scratch, `half-${device}`)],
        ...["--method", "wanda", "--sparsity", "0.5"],
      ]);
      expect(cpu).toMatchObject({ backend: "wasm", before: { backend: "wasm" } });
      expect(gpu).toMatchObject({ backend: "webgpu", before: { backend: "webgpu" } });
      expect(gpu.calibratedBy).toMatch(/^WebGPU on /);
      expect(gpu.before.perplexity / cpu.before.perplexity).toBeCloseTo(1, 5);
      expect(cpu.perplexity / cpu.before.perplexity).toBeGreaterThan(1.01);
      expect(gpu.perplexity / cpu.perplexity).toBeCloseTo(1, 3);
    });

    test("weights without their zeros write what they write with them", () => {
      const pruned = join(scratch, "pruned");
      const prune = rarefy(["prune", model, "--method", "magnitude", "--pattern", "2:4", "-o", pruned]);
      expect(prune.error).toBeUndefined();
      // The kernels of each structure are the contract's.
      const [dense, without] = ["dense", "2:4"].map((structure) =>
        rarefy(["run", pruned, ...run("webgpu").slice(2), "--weights", "q8", "--structure", structure]),
      );
      expect(dense.tokenIds).toHaveLength(6);
      expect(without.tokenIds).toEqual(dense.tokenIds);
    });

    test("auto leaves a GPU that the CPU plays alone", async () => {
      using backend = await openDevice("auto", { threads: 1 });
      expect(backend.info.id).toBe("wasm");
    });
  },
);

test("without the package webgpu the error says what to install, and auto takes the CPU", () => {
  const hook = `export const resolve = (name, context, next) =>
    name === "webgpu" ? Promise.reject(new Error("Cannot find package")) : next(name, context);`;
  const script = `import { register } from "node:module"; register(${JSON.stringify(`data:text/javascript,${encodeURIComponent(hook)}`)});`;
  const node = ["--import", `data:text/javascript,${encodeURIComponent(script)}`];
  const { status, error } = rarefy(run("webgpu"), { node });
  expect(status).toBe(1);
  expect(error).toBe('error: the optional package "webgpu" did not load; npm install webgpu\n');
  expect(rarefy(run("auto"), { node }).tokenIds).toEqual(rarefy(run("cpu")).tokenIds);
});

test("without a GPU the error says what is missing", () => {
  const { status, error } = rarefy(run("webgpu"), { env: { VK_ICD_FILENAMES: "/nonexistent.json" } });
  expect(status).toBe(1);
  expect(error).toContain("needs a Vulkan driver and its loader");
});

test("a device that there is not is refused by name", async () => {
  await expect(openDevice("gpu")).rejects.toThrow("there are cpu, webgpu, auto");
});
