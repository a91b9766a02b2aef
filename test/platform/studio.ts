import { join } from "node:path";
import type { Page } from "playwright-core";
import { expect } from "vitest";
import { ensureBuilt, root } from "../support/rarefy.js";
import { bundlePage, type Chromium, launchChromium, serve } from "./browser.mjs";

/** The model that tests load into the studio. */
export const studioModel = join(root, "models/tiny-6m");

/** The bundled studio, and the browsers that visit it: one with a GPU and one without, each started when it is wanted. */
export interface Studio {
  /**
   * Opens the page on an origin of its own: nothing is stored there yet. `mounts` adds directories by URL prefix. Uncaught errors
   * of the page fail the test.
   */
  visit(
    options: { gpu: boolean; isolated: boolean; mounts?: Readonly<Record<string, string>> },
    use: (page: Page) => Promise<void>,
  ): Promise<void>;
  close(): Promise<void>;
}

export async function openStudio(path: string): Promise<Studio> {
  ensureBuilt();
  const bundle = await bundlePage(join(root, "apps/studio"));
  const browsers = new Map<boolean, Promise<Chromium>>();
  return {
    async visit({ gpu, isolated, mounts = {} }, use) {
      const browser = browsers.get(gpu) ?? launchChromium(path, { gpu });
      browsers.set(gpu, browser);
      const own = { "/": bundle.directory, "/tiny-6m/": studioModel, "/text/": join(root, "models/text") };
      const server = await serve({ ...own, ...mounts }, { isolated });
      const page = await (await browser).newPage();
      try {
        const errors: string[] = [];
        page.on("pageerror", (error) => errors.push(String(error)));
        page.on("dialog", (dialog) => void dialog.accept());
        await page.goto(`${server.origin}/index.html`);
        await page.locator("#machine li").first().waitFor();
        await use(page);
        expect(errors).toEqual([]);
      } finally {
        await page.close();
        await server.close();
      }
    },
    async close() {
      for (const browser of browsers.values()) await (await browser).close();
      await bundle.remove();
    },
  };
}

/** Waits until a model is open on a backend. */
export async function opened(page: Page, backend: string): Promise<void> {
  await page.locator("#generate:enabled").waitFor();
  expect(await page.locator("#opened").textContent()).toContain(backend);
}
