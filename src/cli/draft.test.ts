import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { directoryFiles } from "../io/index.node.js";
import { loadTokenizer } from "../text/index.js";
import type { Context } from "./command.js";
import { openDraft } from "./draft.js";

const tiny = fileURLToPath(new URL("../../models/tiny-6m", import.meta.url));

test("a draft is a model by itself: what the command adds to its own model is none of it", async () => {
  const context = { signal: new AbortController().signal, warn: () => {} } as unknown as Context;
  // The options of `run`, all of them: an adapter that is not there would be read for every model that takes one.
  const machine = { device: "cpu", threads: 1, structure: "auto" } as const;
  const options = { draft: tiny, ...machine, adapter: [`${tiny}/no-adapter`] };
  const tokenizer = await loadTokenizer(directoryFiles(tiny));
  using opened = await openDraft(context, options, tokenizer);
  expect(opened.draft?.text).toContain(tiny);
});
