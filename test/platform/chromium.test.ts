import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { tiny6mGolden } from "../golden/golden.js";
import { ensureBuilt } from "../support/rarefy.js";
import { type Bundle, bundlePage, type Chromium, findChromium, launchChromium } from "./browser.mjs";
import { openPage } from "./openPage.js";
import type { GenerateRequest, OffloadRequest } from "./page/main.js";

const { path, reason } = findChromium();
if (reason !== undefined) console.warn(`The browser tests were not run: ${reason}`);
const golden = tiny6mGolden();
const common = {
  model: "/models/tiny-6m",
  prompt: Array.from(golden.greedyPrompt),
  count: golden.greedy.length,
} satisfies Partial<GenerateRequest>;

/** Without `threads` the backend takes what it can get: memory is shared in a cross-origin isolated page only. */
const cases = [
  { backend: "wasm", weights: "f32", isolated: true, threads: 2 },
  { backend: "wasm", weights: "q8", isolated: true, threads: 2 },
  { backend: "wasm", weights: "f32", isolated: true, threads: 1 },
  { backend: "wasm", weights: "f32", isolated: false, threads: undefined },
  { backend: "reference", weights: "f32", isolated: true, threads: undefined },
] as const;

describe.skipIf(path === undefined)("Chromium generates the golden tokens and logs no error", () => {
  let chromium: Chromium;
  let bundle: Bundle;
  beforeAll(async () => {
    ensureBuilt();
    bundle = await bundlePage(fileURLToPath(new URL("page", import.meta.url)));
    chromium = await launchChromium(path!);
  });
  afterAll(async () => {
    await chromium?.close();
    await bundle?.remove();
  });

  test.each(cases)("$backend, $weights, isolated: $isolated, threads: $threads", async (run) => {
    const { backend, weights, threads, isolated } = run;
    const { page, errors, close } = await openPage(chromium, bundle, run);
    try {
      const request: GenerateRequest = { ...common, backend, weights, threads };
      const result = await page.evaluate((r) => globalThis.generate(r), request);
      expect(result).toEqual({ tokens: golden.greedy, threads: threads ?? 1, isolated });
      expect(errors).toEqual([]);
    } finally {
      await close();
    }
  });

  test("a model larger than the memory it may take runs in a worker, read from the private file system", async () => {
    const { page, errors, close } = await openPage(chromium, bundle, { isolated: true });
    try {
      const residentBytes = 6e6;
      const request: OffloadRequest = { ...common, count: 4, threads: 2, residentBytes };
      const { tokens, plan, bytesRead } = await page.evaluate((r) => globalThis.offload(r), request);
      expect(tokens).toEqual(golden.greedy.slice(0, 4));
      expect(plan.fixedBytes + plan.promptBytes + plan.roomBytes).toBeLessThanOrEqual(residentBytes);
      expect(plan.roomBytes).toBeLessThan(plan.offloadedBytes);
      // Not all of it fits, so that it is read again.
      expect(bytesRead).toBeGreaterThan(plan.offloadedBytes);
      expect(errors).toEqual([]);
    } finally {
      await close();
    }
  });

  test("a page that is not isolated is told how to get threads", async () => {
    const { page, close } = await openPage(chromium, bundle, { isolated: false });
    try {
      const request: GenerateRequest = { ...common, backend: "wasm", weights: "f32", threads: 2 };
      const asked = page.evaluate((r) => globalThis.generate(r), request);
      await expect(asked).rejects.toThrow("Cross-Origin-Opener-Policy");
    } finally {
      await close();
    }
  });
});
