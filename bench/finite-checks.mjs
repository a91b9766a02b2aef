// What looking for NaN and infinities costs while a model is loaded: bytes per second, and its share of the time of loading.
//   npm run build && node bench/finite-checks.mjs [DIRECTORY] [ROUNDS]
// In processor time. Loading and the looking by itself, over the same bytes, take turns; the shares are of each round, their median is printed.
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { openCheckpoint } from "../dist/io/index.js";
import { directoryFiles } from "../dist/io/index.node.js";
import { openModel } from "../dist/pipeline/index.js";
import { firstNonFinite } from "../dist/tensor/index.js";

const packaged = fileURLToPath(new URL("../models/tiny-6m", import.meta.url));
const [directory = packaged, rounds = "9"] = process.argv.slice(2);
const files = directoryFiles(join(directory));
const checkpoint = await openCheckpoint(files);
const tensors = [];
for (const { name, dtype } of checkpoint.tensors.values()) tensors.push({ dtype, bytes: await checkpoint.read(name) });
const bytes = tensors.reduce((sum, tensor) => sum + tensor.bytes.byteLength, 0);

/** Processor time, which other processes disturb less than the clock. */
const timed = async (work) => {
  const before = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
};
const look = () => {
  for (const { dtype, bytes } of tensors) if (firstNonFinite(dtype, bytes) >= 0) throw new Error("not finite");
};
const load = async () => (await openModel(directoryFiles(directory), { weights: "q8", threads: 1 }))[Symbol.dispose]();
for (let warm = 0; warm < 2; warm++) {
  look();
  await load();
}
const all = [];
for (let round = 0; round < Number(rounds); round++) all.push({ lookMs: await timed(look), loadMs: await timed(load) });
await checkpoint.close();

const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];
const range = (values, digits) => `${Math.min(...values).toFixed(digits)} to ${Math.max(...values).toFixed(digits)}`;
const speeds = all.map(({ lookMs }) => bytes / lookMs / 1e6);
const shares = all.map(({ lookMs, loadMs }) => (100 * lookMs) / loadMs);
console.log(`${(bytes / 1e6).toFixed(1)} MB, q8 on one thread, ${rounds} rounds`);
console.log(`looking: ${median(speeds).toFixed(2)} GB/s (${range(speeds, 2)})`);
console.log(`loading: ${median(all.map(({ loadMs }) => loadMs)).toFixed(0)} ms of processor time`);
console.log(`share of loading: ${median(shares).toFixed(2)} % (${range(shares, 2)})`);
