import { mkdtempSync } from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Page } from "playwright-core";
import { build } from "vite";
import { ensureBuilt, root } from "../support/rarefy.js";
import { type Chromium, serve } from "./browser.mjs";

export interface Bundle {
  directory: string;
  remove(): Promise<void>;
}

/**
 * Bundles a page with Vite, as an application would. The page is written against src/ so that the type checker sees it;
 * the bundle takes the built package in dist/ instead, because that is what applications get.
 * @param page directory with an index.html
 */
export async function bundlePage(page: string): Promise<Bundle> {
  ensureBuilt();
  const directory = mkdtempSync(join(tmpdir(), "rarefy-page-"));
  await build({
    root: page,
    configFile: false,
    logLevel: "error",
    base: "./",
    resolve: { alias: [{ find: /^(\.\.\/)+src\//, replacement: join(root, "dist/") }] },
    worker: { format: "es" },
    build: { outDir: directory, emptyOutDir: true, target: "es2023" },
  });
  return { directory, remove: () => rm(directory, { recursive: true, force: true }) };
}

export interface OpenPage {
  page: Page;
  /** Uncaught errors, console errors and failed requests so far. */
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
    if (message.type() === "error") errors.push(message.text());
  });
  page.on("requestfailed", (request) => errors.push(`${request.url()}: ${request.failure()?.errorText}`));
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
