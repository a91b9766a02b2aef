import { readFileSync } from "node:fs";
import { InvalidArgumentError } from "commander";
import { expect, test } from "vitest";
import { parseModelConfig } from "../arch/index.js";
import { type SparsityOption, sparsityOption } from "./options.js";
import { thresholdsFor } from "./session.js";

const parse = (text: string) =>
  sparsityOption().parseArg!(text, undefined) as unknown as NonNullable<SparsityOption["sparsity"]>;
const json = JSON.parse(readFileSync(new URL("../../models/tiny-6m/config.json", import.meta.url), "utf8"));
const { spec } = parseModelConfig(json, "config.json");
const layers = spec.blocks.length;
/** What a calibrated model has: |x| is spread evenly up to 2 at one place. */
const activations = spec.blocks.map(() => ({
  mlpInput: { absQuantiles: Array.from({ length: 20 }, (_, q) => (q + 1) / 10) },
}));
const session = (artifact: unknown) => ({ model: { config: { spec, layers } }, artifact }) as never;

test("--sparsity is a share of zeros where it is a number, else a kind of its own", () => {
  const found = thresholdsFor(session({ activations }), { sparsity: parse("0.5") });
  expect(found).toMatchObject({ maps: Array.from({ length: layers }, () => ({ gate_proj: 1, up_proj: 1 })) });
  expect(thresholdsFor(session(undefined), { sparsity: parse("dense") })).toBe("dense");
  expect(() => thresholdsFor(session(undefined), { sparsity: parse(".5") })).toThrow("rarefy calibrate");
  expect(() => thresholdsFor(session({ activations }), { sparsity: parse("0.99") })).toThrow("expected 0 to 0.95");
  for (const text of ["half", "-0.5", "1e-1", "0.5:zeros=1"]) expect(() => parse(text)).toThrow(InvalidArgumentError);
});
