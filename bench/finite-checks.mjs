// What looking for NaN and infinities costs while a model is loaded: this build against another one in processor time.
//   npm run build && node bench/finite-checks.mjs OTHER [DIRECTORY] [ROUNDS]
// OTHER is a built checkout without the looking: leave `spoilt` out of src/kernels/wasm/assembly/pack.ts there. The two take
// turns, in an order that changes from round to round.
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const here = fileURLToPath(new URL("..", import.meta.url));
const [other, directory = join(here, "models/tiny-6m"), rounds = "61"] = process.argv.slice(2);
if (other === undefined) throw new Error("node bench/finite-checks.mjs OTHER [DIRECTORY] [ROUNDS]");

async function loaderOf(root) {
  const from = (path) => import(pathToFileURL(join(root, "dist", path)).href);
  const [{ openModel }, { directoryFiles }] = [await from("pipeline/index.js"), await from("io/index.node.js")];
  return async (weights) => {
    const before = process.cpuUsage();
    (await openModel(directoryFiles(directory), { weights, threads: 1 }))[Symbol.dispose]();
    const { user, system } = process.cpuUsage(before);
    globalThis.gc?.();
    return (user + system) / 1000;
  };
}

const [looks, blind] = [await loaderOf(here), await loaderOf(other)];
console.log(`${directory}, one thread, ${rounds} rounds`);
for (const weights of ["f32", "bf16", "q8", "q4"]) {
  const pairs = [];
  for (let round = -2; round < Number(rounds); round++) {
    const pair = { looks: 0, blind: 0 };
    for (const which of round % 2 === 0 ? ["looks", "blind"] : ["blind", "looks"]) {
      pair[which] = await (which === "looks" ? looks : blind)(weights);
    }
    if (round >= 0) pairs.push(pair);
  }
  // What other processes take from the caches only ever adds: the fast rounds are those that tell.
  const fast = (which, share) =>
    pairs.map((pair) => pair[which]).toSorted((a, b) => a - b)[Math.floor(pairs.length * share)];
  const more = (share) => (100 * (fast("looks", share) / fast("blind", share) - 1)).toFixed(2);
  console.log(
    `${weights}: ${fast("blind", 0).toFixed(1)} ms of processor time without, ${fast("looks", 0).toFixed(1)} with the looking: ` +
      `${more(0)} % more by the fastest rounds, ${more(0.1)} % and ${more(0.25)} % by those of the fastest tenth and quarter`,
  );
}
