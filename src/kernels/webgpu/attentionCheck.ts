import { DeviceError, median, Random } from "../../core/index.js";
import { wholeHeads } from "../handles.js";
import type { WebGpuBackend } from "./backend.js";
import type { Device } from "./device.js";

interface Way {
  readonly name: string;
  readonly way: "tensor" | "token";
  isPossible(device: Device): boolean;
  /** Share of the norm of a result by which it may be off. */
  readonly tolerance: number;
  /** What both ways attend to: rows behind some that are cached already. */
  readonly shape: { queryHeads: number; kvHeads: number; headDim: number; tokens: number; start: number };
}

const ways: readonly Way[] = [
  {
    name: "attention on the matrix units",
    way: "tensor",
    isPossible: ({ tensorShape }) => tensorShape !== undefined,
    // Queries, keys, values and weights are each within 2⁻¹¹ of themselves as f16.
    tolerance: 2e-3,
    shape: { queryHeads: 16, kvHeads: 8, headDim: 128, tokens: 250, start: 70 },
  },
  {
    name: "attention by subgroups",
    way: "token",
    isPossible: ({ subgroupSize }) => subgroupSize !== undefined,
    tolerance: 1e-5,
    shape: { queryHeads: 4, kvHeads: 2, headDim: 64, tokens: 1, start: 320 },
  },
];

const rounds = 5;
const timesInRound = 8;

/**
 * Has attention done from now on in the ways that give what the general kernels give, and sooner: neither is certain on every
 * GPU, with every driver. A GPU that the CPU plays uses all that are right.
 */
export async function chooseAttention(backend: WebGpuBackend, device: Device): Promise<void> {
  for (const way of ways) if (way.isPossible(device)) await choose(backend, way, device);
}

async function choose(backend: WebGpuBackend, { name, way, tolerance, shape }: Way, device: Device): Promise<void> {
  const { queryHeads, kvHeads, headDim, tokens, start } = shape;
  const random = new Random(3);
  const normals = (count: number) => Float32Array.from({ length: count }, () => random.normal());
  const [queryCols, keyCols, slots] = [queryHeads * headDim, kvHeads * headDim, start + tokens];
  const qkv = backend.allocate(tokens, queryCols + 2 * keyCols);
  const [k, v] = [backend.allocate(slots, keyCols), backend.allocate(slots, keyCols)];
  const out = backend.allocate(tokens, queryCols);
  for (const x of [qkv, k, v]) backend.write(x, normals(x.rows * x.cols));
  const rows = {
    q: qkv.columns(0, queryCols),
    k: qkv.columns(queryCols, keyCols),
    v: qkv.columns(queryCols + keyCols, keyCols),
  };
  const angles = normals((slots * headDim) / 2);
  const table = backend.loadRope(angles.map(Math.cos), angles.map(Math.sin), wholeHeads(headDim));
  using cache = backend.createKvCache({ layers: [{ heads: kvHeads, key: headDim, value: headDim }], slots });
  backend.appendKv(cache, 0, k, v, 0);
  const options = { queryHeads, scale: 1 / Math.sqrt(headDim), start };
  const attend = (isOn: boolean) => {
    backend.attend[way].isOn = isOn;
    backend.attention(out, rows.q, cache, 0, options);
  };
  const attendRotated = (isOn: boolean) => {
    backend.attend[way].isOn = isOn;
    backend.rotatedAttention(out, rows, table, cache, 0, { ...options, position: start });
  };
  const errorOf = async (run: (isOn: boolean) => void) => {
    run(false);
    const expected = await backend.read(out);
    backend.write(out, new Float32Array(expected.length).fill(Number.NaN));
    run(true);
    const actual = await backend.read(out);
    const norm = (values: Float32Array) => Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
    return norm(actual.map((value, i) => value - expected[i])) / norm(expected);
  };
  const elapsedMs = async (isOn: boolean) => {
    const startMs = performance.now();
    for (let i = 0; i < timesInRound; i++) attend(isOn);
    await backend.flush();
    return performance.now() - startMs;
  };
  const isSooner = async () => {
    const [before, after] = [[] as number[], [] as number[]];
    for (let round = 0; round < rounds; round++) {
      before.push(await elapsedMs(false));
      after.push(await elapsedMs(true));
    }
    return median(after) < median(before);
  };
  try {
    // The rotated row first, which changes the cache: it does so in both ways.
    const errors = [tokens === 1 ? await errorOf(attendRotated) : 0, await errorOf(attend)];
    const isRight = errors.every((error) => error <= tolerance);
    if (!isRight) backend.problems.push(`${name} is off by ${Math.max(...errors)} of the norm`);
    backend.attend[way].isOn = isRight && (device.isSoftware || (await isSooner()));
  } catch (error) {
    // A kernel that does not compile here is not used; a device that went is an error.
    backend.attend[way].isOn = false;
    device.throwIfGone();
    if (!(error instanceof DeviceError)) throw error;
    backend.problems.push(`${name}: ${error.message}`);
  } finally {
    backend.freeRope(table);
    for (const x of [qkv, k, v, out]) backend.release(x);
    backend.takeCounters();
  }
}
