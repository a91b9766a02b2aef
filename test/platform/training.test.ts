import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ensureBuilt } from "../support/rarefy.js";
import { type Bundle, bundlePage, type Chromium, findChromium, launchChromium } from "./browser.mjs";
import { openPage } from "./openPage.js";
import { trainFew } from "./trainFew.js";

const { path, reason } = findChromium();
if (reason !== undefined) console.warn(`Training was not tested in a browser: ${reason}`);

describe.skipIf(path === undefined)("training in Chromium", () => {
  let chromium: Chromium;
  let bundle: Bundle;
  beforeAll(async () => {
    ensureBuilt();
    bundle = await bundlePage(fileURLToPath(new URL("trainingPage", import.meta.url)));
    chromium = await launchChromium(path!, { gpu: true });
  });
  afterAll(async () => {
    await chromium?.close();
    await bundle?.remove();
  });

  test.each(["wasm", "webgpu"] as const)("on %s gives the losses that it gives in Node.js", async (device) => {
    const expected = await trainFew("wasm");
    expect(expected.losses.at(-1)).toBeLessThan(expected.losses[0]);
    expect(expected.zeros).toBe(0.5);
    const { page, errors, close } = await openPage(chromium, bundle, { isolated: true });
    try {
      const { losses, zeros } = await page.evaluate((id) => globalThis.trainHere(id), device);
      expect(zeros).toBe(0.5);
      for (const [i, loss] of losses.entries()) expect(loss).toBeCloseTo(expected.losses[i], 3);
      expect(losses).toHaveLength(expected.losses.length);
      expect(errors).toEqual([]);
    } finally {
      await close();
    }
  });
});
