import { join } from "node:path";
import type { Page } from "playwright-core";
import { root } from "../support/rarefy.js";
import { type Bundle, type Chromium, serve } from "./browser.mjs";

export interface OpenPage {
  page: Page;
  /** Uncaught errors and console errors so far; Chromium reports resources it could not load among the latter. */
  errors: string[];
  close(): Promise<void>;
}

/** Opens a bundled page on an origin of its own, together with the models of the repository under /models/. */
export async function openPage(chromium: Chromium, bundle: Bundle, options: { isolated: boolean }): Promise<OpenPage> {
  const server = await serve({ "/": bundle.directory, "/models/": join(root, "models") }, options);
  const page = await chromium.newPage();
  const errors: string[] = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (message) => {
    // Chromium reports every answer 404; a model need not have a rarefy.json.
    if (message.type() === "error" && !message.location().url.endsWith("/rarefy.json")) errors.push(message.text());
  });
  await page.goto(`${server.origin}/index.html`);
  return {
    page,
    errors,
    async close() {
      await page.close();
      await server.close();
    },
  };
}
