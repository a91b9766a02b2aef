import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openDevice } from "../../src/kernels/internal.js";
import { command, ensureInstalled, root } from "../support/rarefy.js";
import { rarefyInProcess } from "../support/rarefyInProcess.js";
import { useSoftwareGpu } from "../support/softwareGpu.js";

await useSoftwareGpu();
const unavailable = await openDevice("webgpu").then(
  (backend) => void backend[Symbol.dispose](),
  (error: Error) => error.message,
);

const model = "models/tiny-6m";
const scratch = mkdtempSync(join(tmpdir(), "rarefy-device-"));
beforeAll(ensureInstalled);
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const settings = ["--json", "--quiet", "--threads", "1"];

/** Runs the command line in a process of its own; its document, or the error it ended in. */
function rarefyApart(args: readonly string[], options: { node?: string[]; env?: Record<string, string> } = {}) {
  const child = spawnSync(process.execPath, [...(options.node ?? []), command, ...args, ...settings], {
    cwd: root,
    encoding: "utf8",
    env: { ...process.env, ...options.env },
  });
  return child.status === 0 ? JSON.parse(child.stdout) : { status: child.status, error: child.stderr };
}

/** In this process, whose GPU has the kernels that another test or command had it compile. */
async function rarefyHere(args: readonly string[]) {
  const { code, stdout, stderr } = await rarefyInProcess(command, [...args, ...settings]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  return JSON.parse(stdout);
}

const onBoth = async (args: (device: string) => string[]) => [
  await rarefyHere([...args("cpu"), "--device", "cpu"]),
  await rarefyHere([...args("webgpu"), "--device", "webgpu"]),
];
const run = (device: string) => ["run", model, "--prompt", "It was a dark", "--max-tokens", "6", "--device", device];

describe.skipIf(unavailable !== undefined)(
  `--device webgpu${unavailable === undefined ? "" : `: ${unavailable}`}`,
  () => {
    test("run writes what the CPU writes", () => {
      const [cpu, gpu] = ["cpu", "webgpu"].map((device) => rarefyApart(run(device)));
      expect(cpu.tokenIds).toHaveLength(6);
      expect(gpu.tokenIds).toEqual(cpu.tokenIds);
    });

    test("calibrate finds the thresholds of the CPU, and eval its perplexity, dense and sparse", async () => {
      const windows = (text: string) => ["--text", `models/text/${text}`, "--window", "32", "--weights", "f32"];
      const output = (device: string) => join(scratch, device);
      await onBoth((device) => [
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
      const [cpu, gpu] = await onBoth(() => ["eval", output("cpu"), ...evaluation]);
      expect(gpu.perplexity).not.toBe(gpu.against.perplexity);
      expect(gpu.perplexity / cpu.perplexity).toBeCloseTo(1, 5);
      expect(gpu.against.perplexity / cpu.against.perplexity).toBeCloseTo(1, 5);
    });

    test("prune leaves what it leaves on the CPU, and says where it measured", async () => {
      const [cpu, gpu] = await onBoth((device) => [
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

    test("weights without their zeros write what they write with them", async () => {
      const pruned = join(scratch, "pruned");
      await rarefyHere(["prune", model, "--method", "magnitude", "--pattern", "2:4", "-o", pruned]);
      // The kernels of each structure are the contract's.
      const from = (structure: string) =>
        rarefyHere(["run", pruned, ...run("webgpu").slice(2), "--weights", "q8", "--structure", structure]);
      const [dense, without] = [await from("dense"), await from("2:4")];
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
  const { status, error } = rarefyApart(run("webgpu"), { node });
  expect(status).toBe(1);
  expect(error).toBe('error: the optional package "webgpu" did not load; npm install webgpu\n');
  expect(rarefyApart(run("auto"), { node }).tokenIds).toEqual(rarefyApart(run("cpu")).tokenIds);
});

test("without a GPU the error says what is missing", () => {
  const { status, error } = rarefyApart(run("webgpu"), { env: { VK_ICD_FILENAMES: "/nonexistent.json" } });
  expect(status).toBe(1);
  expect(error).toContain("needs a Vulkan driver and its loader");
});

test("a device that there is not is refused by name", async () => {
  await expect(openDevice("gpu")).rejects.toThrow("there are cpu, webgpu, auto");
});
