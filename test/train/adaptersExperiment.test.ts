import { expect, test } from "vitest";
import { startEngine } from "../../src/train/engine/engine.js";
import { experiment } from "../../src/train/experiments/adapters.js";
import type { State } from "../../src/train/state.js";

test("stopped while the base model is trained, and between adapters, it comes to the same", async () => {
  await startEngine("wasm");
  const [cell] = experiment.plan("smoke", 1, "");
  let stored: State | undefined;
  const steps: number[] = [];
  const run = (stopAtSave?: number) => {
    let saves = 0;
    return experiment.run(cell, {
      device: "wasm",
      readText: async () => "",
      openModel: () => Promise.reject(new Error("no model")),
      state: {
        load: async () => stored && structuredClone(stored),
        async save(step, state) {
          steps.push(step);
          stored = structuredClone(state);
          if (++saves === stopAtSave) throw new Error("stopped");
        },
      },
    });
  };
  const expected = await run();
  stored = undefined;
  steps.length = 0;
  await expect(run(1)).rejects.toThrow("stopped");
  expect(stored).toMatchObject({ training: { step: 2 } });
  await expect(run(3)).rejects.toThrow("stopped");
  expect(Object.keys(JSON.parse(stored!.found as string).learnt)).toHaveLength(2);
  expect(await run()).toEqual(expected);
  expect(steps).toEqual(steps.map((_, i) => i + 1));
});
