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
export function jobReaders({ io, text, evaluationJob, experimentJob, jobParts, sweepJob, sweepMeasure, version }) {
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
      evaluation: { path: "./text.txt", tokensSha256: await jobParts.tokensSha256(evaluation) },
      ...settings,
    };
    const idOf = ({ name, recipe, ...how }) =>
      sweepMeasure.keyOf({ source, identity, options: { evaluation, ...how } }, { name, recipe });
    const evaluated = {
      ...{ version: payload.version, model: payload.model },
      text: { ...payload.evaluation, convention: "windows", window: 8, maxWindows: 1 },
      settings: { prefill: "dense", kv: "int8" },
    };
    const cell = {
      ...{ version: payload.version, experiment: "qiren", scale: "smoke", seeds: 1 },
      ...{ key: "tone-model0-seed0", texts: [] },
    };
    return { root, payload, id: await idOf(payload), idOf, evaluated, cell };
  }

  const damaged = (value, random) => JSON.parse(JSON.stringify(mutateValue(value, random)) ?? "null");
  /** Damaged, but still an object. */
  const bent = (value, random) => ({ ...value, ...damaged(value, random) });

  let place;
  return {
    evaluationPayload: async (random) => {
      place ??= workplace();
      const { root, evaluated } = await place;
      const options = { root, scratch: join(root, "scratch"), threads: 1 };
      const { evaluationJobId, runEvaluationJob } = evaluationJob;
      const { path, tokensSha256, ...cut } = evaluated.text;
      const text = { path, tokensSha256, ...bent(cut, random) };
      const signed = { ...evaluated, text, settings: bent(evaluated.settings, random) };
      const payload = random(2) === 0 ? damaged(evaluated, random) : signed;
      return runEvaluationJob({ id: await evaluationJobId(signed), payload }, options);
    },
    cellPayload: async (random) => {
      place ??= workplace();
      const { root, cell } = await place;
      const options = { root, scratch: join(root, "scratch"), threads: 1 };
      // Its settings are the plan's, whatever a queue says.
      const id = await experimentJob.cellJobId({ key: cell.key, seed: 0, settings: {} }, cell);
      return experimentJob.runExperimentJob({ id, payload: damaged(cell, random) }, options);
    },
    jobPayload: async (random) => {
      place ??= workplace();
      const { root, payload, id, idOf } = await place;
      const options = { root, scratch: join(root, "scratch"), threads: 1 };
      if (random(2) === 0) return sweepJob.runSweepJob({ id, payload: damaged(payload, random) }, options);
      const signed = { ...payload, ...damaged({ name: payload.name, recipe, ...settings }, random) };
      return sweepJob.runSweepJob({ id: await idOf(signed), payload: signed }, options);
    },
  };
}
