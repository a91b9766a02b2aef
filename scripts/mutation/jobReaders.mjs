// What workers take from a queue: the payload of a job, of a small model that they measure, damaged as it lies there, or by
// somebody who knows how its id is made.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fresh, json, mutateValue } from "./mutations.mjs";
import * as seeds from "./seeds.mjs";

const recipe = { version: 1, stages: [{ type: "prune", method: "magnitude", pattern: 0.5 }] };
const settings = { window: 8, maxWindows: 1, weights: "f32", store: "packed", dtype: "F32", device: "cpu" };

/** @returns readers of the modules of `modulesOfReaders` */
export function jobReaders({ io, text, sweepJob, sweepMeasure, version }) {
  /** A worker's folder with the model and the text that the right payload names; it goes with the process. */
  async function workplace() {
    const root = mkdtempSync(join(tmpdir(), "rarefy-mutated-jobs-"));
    process.once("exit", () => rmSync(root, { recursive: true, force: true }));
    const { header, data } = seeds.safetensorsParts(seeds.plain);
    const model = {
      "config.json": json(seeds.configs[0]),
      "model.safetensors": fresh(seeds.safetensorsFile(header, data)),
      "tokenizer.json": json(seeds.tokenizer),
      "tokenizer_config.json": json(seeds.tokenizerConfig),
    };
    mkdirSync(join(root, "model"));
    for (const [name, bytes] of Object.entries(model)) writeFileSync(join(root, "model", name), bytes);
    const words = "the old man of the sea and the boat ".repeat(8);
    writeFileSync(join(root, "text.txt"), words);
    const source = io.memoryFiles("model", new Map(Object.entries(model)));
    const checkpoint = await io.openCheckpoint(source);
    const identity = await sweepMeasure.identityOf(checkpoint, {}).finally(() => checkpoint.close());
    const evaluation = await text.tokenizeText(await text.loadTokenizer(source), words, {});
    const payload = {
      version: version.packageVersion(),
      ...{ name: "half", recipe, model: { path: "./model", ...identity } },
      evaluation: { path: "./text.txt", tokensSha256: await sweepJob.tokensSha256(evaluation) },
      ...settings,
    };
    const idOf = ({ name, recipe, ...how }) =>
      sweepMeasure.keyOf({ source, identity, options: { evaluation, ...how } }, { name, recipe });
    return { root, payload, id: await idOf(payload), idOf };
  }

  let place;
  return {
    jobPayload: async (random) => {
      place ??= workplace();
      const { root, payload, id, idOf } = await place;
      const options = { root, scratch: join(root, "scratch"), threads: 1 };
      const damaged = (value) => JSON.parse(JSON.stringify(mutateValue(value, random)) ?? "null");
      if (random(2) === 0) return sweepJob.runSweepJob({ id, payload: damaged(payload) }, options);
      const signed = { ...payload, ...damaged({ name: payload.name, recipe, ...settings }) };
      return sweepJob.runSweepJob({ id: await idOf(signed), payload: signed }, options);
    },
  };
}
