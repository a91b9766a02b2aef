import { expect, it } from "vitest";
// @ts-expect-error: plain JavaScript, shared with the scripts
import { generator, readersOf } from "../scripts/mutation/readers.mjs";
import * as compress from "../src/compress/index.js";
import { RarefyError } from "../src/core/index.js";
import * as io from "../src/io/index.js";
import * as model from "../src/model/index.js";
import * as report from "../src/report/index.js";
import * as text from "../src/text/index.js";
import * as storedState from "../src/train/storedState.js";

const readers: Record<string, (random: (n: number) => number) => unknown> = readersOf({
  io,
  text,
  model,
  compress,
  report,
  storedState,
});
/** Of each reader; `scripts/mutate-readers.mjs` does millions. */
const inputs = 150;

it.each(Object.entries(readers))(
  "%s: damaged files end in a result or an error of the package",
  async (_name, read) => {
    const untyped: string[] = [];
    let refused = 0;
    for (let index = 0; index < inputs; index++) {
      try {
        await read(generator(9, index));
      } catch (error) {
        refused++;
        if (!(error instanceof RarefyError)) untyped.push(`${index}: ${(error as Error).stack}`);
        else expect(error.message.length).toBeLessThan(10_000);
      }
    }
    expect(untyped).toEqual([]);
    expect(refused).toBeGreaterThan(0);
  },
);
