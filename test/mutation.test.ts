import { expect, it } from "vitest";
// @ts-expect-error: plain JavaScript, shared with the scripts
import { generator, modulesOfReaders, readersOf } from "../scripts/mutation/readers.mjs";
import { RarefyError } from "../src/core/index.js";

/** Sources in place of what is built: the same paths. */
const modules = Object.fromEntries(
  await Promise.all(
    Object.entries(modulesOfReaders as Record<string, string>).map(async ([name, path]) => [
      name,
      await import(/* @vite-ignore */ new URL(`../src/${path}.ts`, import.meta.url).pathname),
    ]),
  ),
);
const readers: Record<string, (random: (n: number) => number) => unknown> = readersOf(modules);
/** Of each reader; `scripts/mutate-readers.mjs` does millions. */
const inputs = 80;

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
