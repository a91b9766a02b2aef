// What looking for NaN and infinities costs while weights are packed: this build against another one in processor time.
//   npm run build && node bench/finite-checks.mjs OTHER [ROUNDS]
// OTHER is a built checkout without the looking: leave `spoilt` out of src/kernels/wasm/assembly/pack.ts there. A matrix of bf16
// numbers is packed from memory, so that the share is larger than that of loading from files. The two take turns; other
// processes only ever add to what a round takes, so the fast rounds are the ones that tell.
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { readOptions } from "../scripts/options.mjs";
import { cpuMs } from "./stopwatch.mjs";

const [other, rounds = "101"] = readOptions({ allowPositionals: true }).positionals;
if (other === undefined) throw new Error("node bench/finite-checks.mjs OTHER [ROUNDS]");
const [rows, cols] = [1024, 1024];
const stored = new Uint16Array(rows * cols).map((_, i) => 0x3c00 + ((i * 37) % 511));
const bytes = new Uint8Array(stored.buffer);

async function packerOf(root) {
  const { createBackend } = await import(pathToFileURL(join(root, "dist/kernels/wasm/index.js")).href);
  const backend = await createBackend({ threads: 1 });
  const read = async (start, count, into) => into.set(bytes.subarray(start * cols * 2, (start + count) * cols * 2));
  return async (format) => {
    const region = backend.openRegion({ weightBytes: 0 });
    const before = cpuMs();
    await region.loadMatrix([{ name: "w", rows, cols, dtype: "BF16", read }], format);
    const taken = cpuMs() - before;
    region[Symbol.dispose]();
    return taken;
  };
}

const packers = {
  looks: await packerOf(fileURLToPath(new URL("..", import.meta.url))),
  blind: await packerOf(other),
};
console.log(`${rows} x ${cols} bf16 numbers packed on one thread, ${rounds} rounds`);
for (const format of ["f32", "bf16", "q8", "q4"]) {
  const taken = { looks: [], blind: [] };
  for (let round = -3; round < Number(rounds); round++) {
    for (const which of round % 2 === 0 ? ["looks", "blind"] : ["blind", "looks"]) {
      const ms = await packers[which](format);
      if (round >= 0) taken[which].push(ms);
    }
  }
  const fast = (which, share) => taken[which].toSorted((a, b) => a - b)[Math.floor(rounds * share)];
  const more = (share) => (100 * (fast("looks", share) / fast("blind", share) - 1)).toFixed(1);
  console.log(
    `${format}: ${fast("blind", 0).toFixed(2)} ms without, ${fast("looks", 0).toFixed(2)} with the looking: ` +
      `${more(0)} % more in the fastest rounds, ${more(0.1)} % and ${more(0.25)} % in those of the fastest tenth and quarter`,
  );
}
