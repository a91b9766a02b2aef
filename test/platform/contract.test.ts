import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ensureBuilt } from "../support/rarefy.js";
import { type Bundle, bundlePage, type Chromium, findChromium, launchChromium } from "./browser.mjs";
import { openPage } from "./openPage.js";

const { path, reason } = findChromium();
if (reason !== undefined) console.warn(`The contract was not tested in a browser: ${reason}`);

describe.skipIf(path === undefined)("WebGPU in Chromium", () => {
  let chromium: Chromium;
  let bundle: Bundle;
  beforeAll(async () => {
    ensureBuilt();
    const directory = fileURLToPath(new URL("contractPage", import.meta.url));
    bundle = await bundlePage(directory, { vitest: `${directory}/vitestInPage.ts` });
    chromium = await launchChromium(path!, { gpu: true });
  });
  afterAll(async () => {
    await chromium?.close();
    await bundle?.remove();
  });

  test("does what the backend contract promises", async () => {
    const { page, errors, close } = await openPage(chromium, bundle, { isolated: true });
    try {
      const outcomes = await page.evaluate(() => globalThis.runContract());
      expect(outcomes.filter(({ error }) => error !== undefined)).toEqual([]);
      expect(outcomes.length).toBeGreaterThan(60);
      expect(errors).toEqual([]);
    } finally {
      await close();
    }
  });
});
