import { fileURLToPath } from "node:url";
import { afterEach, expect, test, vi } from "vitest";
import { UsageError } from "../../core/index.js";
import { directoryFiles } from "../../io/index.node.js";
import { loadTokenizer } from "../../text/index.js";
import { Grammars } from "./grammars.js";

const tiny = fileURLToPath(new URL("../../../models/tiny-6m", import.meta.url));
const tokenizer = await loadTokenizer(directoryFiles(tiny));
const nested = (inner: object) => Array.from({ length: 28 }).reduce<object>((held) => object(held), inner);
const object = (city: unknown) => ({ type: "object", properties: { city }, required: ["city"] });

afterEach(() => {
  vi.restoreAllMocks();
});

test("schemas that cannot be followed are refused by name, print nothing and leave the others what they were", async () => {
  const printed = [vi.spyOn(console, "error"), vi.spyOn(console, "log")];
  using grammars = new Grammars(tokenizer, tokenizer.vocabSize, [0]);
  using before = await grammars.constraint(object({ type: "string" }));
  // At once, as clients ask. An instance that has given up at two such, as deep as a body may be, answers nothing any more.
  const wrong = Array.from({ length: 3 }, (_, i) => grammars.constraint(nested({ type: `none-${i}` })));
  const right = Array.from({ length: 3 }, (_, i) => grammars.constraint(object({ enum: ["a", `b${i}`] })));
  for (const [i, asked] of wrong.entries()) {
    const error = await asked.catch((refused) => refused);
    expect(error).toBeInstanceOf(UsageError);
    expect(error.message).toBe(`the schema cannot be followed: Unsupported type "none-${i}"`);
  }
  for (const constraint of await Promise.all(right)) constraint[Symbol.dispose]();
  const logits = new Float32Array(tokenizer.vocabSize);
  await before.mask(logits);
  const allowed = Array.from(logits.keys()).filter((id) => logits[id] === 0);
  expect(allowed.map((id) => tokenizer.tokenOf(id)?.[0])).toContain("{");
  expect(allowed.every((id) => tokenizer.tokenOf(id)!.startsWith("{"))).toBe(true);
  for (const spy of printed) expect(spy).not.toHaveBeenCalled();
});
