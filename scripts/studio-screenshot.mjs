// Takes the picture of the studio that docs/ shows: npm run build && node scripts/studio-screenshot.mjs

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { bundlePage, findChromium, launchChromium, serve } from "../test/platform/browser.mjs";

const root = join(import.meta.dirname, "..");
const { path, reason } = findChromium();
if (reason !== undefined) throw new Error(reason);
const bundle = await bundlePage(join(root, "apps/studio"));
const models = join(root, "models");
const mounts = { "/": bundle.directory, "/tiny-6m/": join(models, "tiny-6m"), "/text/": join(models, "text") };
const server = await serve(mounts, { isolated: true });
const chromium = await launchChromium(path, { gpu: true });
const page = await chromium.newPage();
await page.setViewportSize({ width: 1280, height: 900 });
await page.goto(`${server.origin}/index.html`);
await page.locator("#machine li").first().waitFor();
await page.selectOption("#device", "cpu");
await page.click("#fetch-form button");
await page.locator("#generate:enabled").waitFor();
await page.fill("#max-tokens", "72");
await page.fill("#temperature", "0.7");
await page.selectOption("#sparsity", "0.4");
await page.click("#generate");
await page.locator("#verdict", { hasText: "the texts" }).waitFor();
mkdirSync(join(root, "docs/images"), { recursive: true });
await page.screenshot({ path: join(root, "docs/images/studio.png"), fullPage: true });
await chromium.close();
await server.close();
await bundle.remove();
