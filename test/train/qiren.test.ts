import { expect, test } from "vitest";
import type { CellOptions } from "../../src/train/experiments/contract.js";
import { experiment } from "../../src/train/experiments/qiren.js";
import { AdamFit, models } from "../../src/train/quantum/network.js";
import { gridOf, signalNamed } from "../../src/train/quantum/signals.js";
import { randomFor } from "../../src/train/seeds.js";

test("SIREN at a frequency of its own is trained at it, at a rate of its own, and is reported beside the paper's models", async () => {
  const cells = experiment.plan("smoke", 1, "").filter(({ settings }) => settings.signal === "tone");
  const finished = [];
  for (const cell of cells.filter(({ settings }) => String(settings.model).startsWith("SIREN"))) {
    finished.push({ ...cell, result: await experiment.run(cell, {} as CellOptions), device: "wasm" as const });
  }
  const signal = signalNamed("tone", 40);
  const expected = (name: string, rate: number, frequency: number) => {
    const sizes = { hybridLayers: 2, qubits: 3, uploads: 2, width: 10, hiddenLayers: 6, frequency };
    const adam = new AdamFit(models.SIREN(1, randomFor(0, `qiren/${name}/tone`), sizes), rate);
    for (let step = 0; step < 8; step++) adam.step(gridOf(signal), signal.values);
    const made = adam.network.forward(gridOf(signal), 40, false);
    return made.reduce((sum, value, i) => sum + (value - signal.values[i]) ** 2, 0) / 40;
  };
  const errors = Object.fromEntries(finished.map(({ settings, result }) => [settings.model, result.error]));
  expect(errors).toEqual({
    SIREN: expected("SIREN", 0.03, 1),
    "SIREN, frequency 5": expected("SIREN, frequency 5", 0.01, 5),
    "SIREN, frequency 10": expected("SIREN, frequency 10", 0.01, 10),
  });
  const { tables } = await experiment.report(finished, "smoke");
  expect(tables[0].rows.map(([name, parameters]) => [name, parameters])).toEqual([
    ["SIREN", "691, –"],
    ["SIREN, frequency 5", "691, –"],
    ["SIREN, frequency 10", "691, –"],
  ]);
});
