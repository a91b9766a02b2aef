import { readFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Backend, openBackend } from "../../src/kernels/index.js";
import type { WeightFormatId } from "../../src/pack/index.js";
import { architectureGolden, architectureNames, load, logitsOf, negativeLogLikelihood, path } from "./golden.js";

/** The table of docs/formats.md: the largest error of a token's NLL in each format. */
function stated(): ReadonlyMap<string, Readonly<Record<string, number>>> {
  const page = readFileSync(new URL("../../docs/formats.md", import.meta.url), "utf8");
  const [head, _, ...rows] = page
    .slice(page.indexOf("### What rounding the weights costs"))
    .split("\n\n")
    .find((part) => part.startsWith("|"))!
    .split("\n")
    .filter((line) => line.startsWith("|"))
    .map((line) => line.split("|").map((cell) => cell.trim().replaceAll("`", "")));
  return new Map(
    rows.map((cells) => [cells[1], Object.fromEntries(head.map((name, i) => [name, Number(cells[i])] as const))]),
  );
}

let backend: Backend;
beforeAll(async () => {
  backend = await openBackend("wasm", { threads: 1 });
});
afterAll(() => backend[Symbol.dispose]());

const formats: readonly WeightFormatId[] = ["bf16", "q8", "q4"];

test("the docs tell of all goldens that predict tokens", () => {
  expect([...stated().keys()]).toEqual([...architectureNames]);
});

test.each(architectureNames)("%s: the NLL of every token in bf16, q8 and q4 is as near as the docs say, and not much nearer", async (name) => {
  const { ids, nll } = architectureGolden(name);
  for (const format of formats) {
    using model = await load(path(`arch/${name}`), backend, format);
    const logits = await logitsOf(model, ids);
    const worst = Math.max(...nll.map((value, i) => Math.abs(negativeLogLikelihood(logits[i], ids[i + 1]) - value)));
    const said = stated().get(name)![format];
    expect(worst, format).toBeLessThan(said);
    expect(worst, format).toBeGreaterThan(said / 4);
  }
});
