// Takes the pictures of the studio: npm run build && node scripts/studio-screenshot.mjs
// docs/images/studio.png is that of the documentation; all panels, on a desktop and on a phone in the dark, go to
// apps/studio/screenshots/, which git ignores.

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { bundlePage, findChromium, launchChromium, serve } from "../test/platform/browser.mjs";
import { readOptions } from "./options.mjs";

readOptions();
const root = join(import.meta.dirname, "..");
const all = join(root, "apps/studio/screenshots");
const { path, reason } = findChromium();
if (reason !== undefined) throw new Error(reason);
const bundle = await bundlePage(join(root, "apps/studio"));
const models = join(root, "models");
const mounts = { "/": bundle.directory, "/tiny-6m/": join(models, "tiny-6m"), "/text/": join(models, "text") };
const server = await serve(mounts, { isolated: true });
const chromium = await launchChromium(path, { gpu: true });
const page = await chromium.newPage();
const desktop = { width: 1280, height: 900 };
await page.setViewportSize(desktop);
await page.goto(`${server.origin}/index.html`);
await page.locator("#machine li").first().waitFor();
await page.selectOption("#device", "cpu");
await page.click("#fetch-form button");
await page.locator("#generate:enabled").waitFor();

await page.click("#tab-compress");
await page.fill("#calibration-windows", "16");
await page.fill("#window", "128");
await page.fill("#evaluation-windows", "8");
await page.click("#start");
await page.locator("#result h3").waitFor();
await page.click("#result button >> text=Show the report");
await page.locator("#save-report:enabled").waitFor();
await page.click("#tab-inspect");
await page.click("#look");
await page.locator("#inside svg").first().waitFor();

await page.click("#tab-chat");
await page.fill("#max-tokens", "72");
await page.fill("#temperature", "0.7");
await page.getByLabel("Inputs skipped by B").selectOption("0.4");
await page.locator("#generate:enabled").waitFor();
await page.click("#add-variant");
await page.getByLabel("Model of C").selectOption("tiny-6m-wanda-50");
await page.locator("#generate:enabled").waitFor();
await page.getByLabel("Inputs skipped by C").selectOption("dense");
await page.locator("#generate:enabled").waitFor();
await page.click("#generate");
await page.locator("#verdict", { hasText: "the texts" }).waitFor();

mkdirSync(join(root, "docs/images"), { recursive: true });
mkdirSync(all, { recursive: true });
await page.screenshot({ path: join(root, "docs/images/studio.png"), fullPage: true });
for (const [name, size, colorScheme] of [
  ["desktop", desktop, "light"],
  ["phone", { width: 390, height: 844 }, "dark"],
]) {
  await page.setViewportSize(size);
  await page.emulateMedia({ colorScheme });
  for (const tab of ["chat", "compress", "inspect", "report"]) {
    await page.click(`#tab-${tab}`);
    await page.screenshot({ path: join(all, `${tab}-${name}.png`), fullPage: true });
  }
}
await chromium.close();
await server.close();
await bundle.remove();
