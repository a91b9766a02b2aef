import { expect, it } from "vitest";
import * as z from "zod/mini";
import { FormatError } from "./errors.js";
import { checkSchema } from "./schema.js";

it("names the wrong fields, the first as its own", () => {
  const schema = z.object({ a: z.number(), b: z.string() });
  expect(() => checkSchema(schema, { a: "x", b: 3 }, "f.json")).toThrow(/f\.json: a: .*\(also b: /);
  expect(checkSchema(schema, { a: 1, b: "x" }, "f.json")).toEqual({ a: 1, b: "x" });
});

it("refuses an object with a length that is none, wherever a text or a list is bounded", () => {
  for (const schema of [z.string().check(z.maxLength(4)), z.array(z.number()).check(z.maxLength(4))]) {
    const raw = { x: { length: [{ toString: 1 }] } };
    expect(() => checkSchema(z.object({ x: schema }), raw, "f.json")).toThrow(FormatError);
  }
});
