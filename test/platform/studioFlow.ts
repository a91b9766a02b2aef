import { readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import axe from "axe-core";
import { unzipSync } from "fflate";
import type { Page } from "playwright-core";
import { expect } from "vitest";
import { evaluateQuality } from "../../src/eval/index.js";
import { compressionOf, memoryFiles, readArtifact } from "../../src/io/index.js";
import { directoryFiles } from "../../src/io/index.node.js";
import { openModel } from "../../src/pipeline/index.js";
import { loadTokenizer, tokenizeText } from "../../src/text/index.js";
import { root } from "../support/rarefy.js";
import { opened, studioModel } from "./studio.js";

const text = (name: string) => join(root, "models/text", name);

/** Few, so that it is soon done. */
const calibration = { window: 64, windows: 2 };
const measured = { window: 64, maxWindows: 2 };

/** What axe-core finds wrong with the page as it is. */
async function violations(page: Page): Promise<string[]> {
  await page.evaluate(axe.source);
  return page.evaluate(async () => {
    const { violations: found } = await (globalThis as unknown as { axe: typeof import("axe-core") }).axe.run();
    return found.flatMap(({ id, nodes }) => nodes.map(({ html }) => `${id}: ${html}`));
  });
}

/** From opening a model to its pruned export, by keyboard where that is a feature; checked for what bars anyone. */
export async function pruneAndExport(page: Page): Promise<void> {
  await page.click("#fetch-form button");
  await opened(page, "WebAssembly");
  expect(await violations(page)).toEqual([]);
  const { before, after } = await prunedByKeyboard(page);
  await cancelledLeavesNothing(page);

  await page.getByRole("button", { name: "Compare in the chat" }).click();
  await opened(page, "tiny-6m-wanda-50 is open");
  await page.fill("#max-tokens", "4");
  await page.click("#generate");
  await page.locator("#verdict", { hasText: "B ran" }).waitFor();
  expect(await page.locator("[data-variant='1'] [data-id]").count()).toBe(4);

  await reportReads(page);
  await insideIsShown(page);
  await fitsPhonesInTheDark(page);
  await exportAgrees(page, before, after);
}

/** @returns perplexity of source and result as the page shows them */
async function prunedByKeyboard(page: Page): Promise<{ before: number; after: number }> {
  await page.focus("#tab-chat");
  await page.keyboard.press("ArrowRight");
  expect(await page.evaluate(() => document.activeElement?.id)).toBe("tab-compress");
  await page.fill("#calibration-windows", String(calibration.windows));
  await page.fill("#window", String(calibration.window));
  await page.fill("#evaluation-windows", String(measured.maxWindows));
  await page.focus("#result-name");
  expect(await page.inputValue("#result-name")).toBe("tiny-6m-wanda-50");
  await page.keyboard.press("Enter");
  await page.locator("#result h3").or(page.locator("#compress .error:not([hidden])")).waitFor();
  expect(await page.locator("#compress .error").textContent()).toBe("");
  expect(await violations(page)).toEqual([]);
  const cells = await page.locator("#result tbody td:nth-child(2)").allTextContents();
  const [before, after] = cells.map(Number);
  expect(after).toBeGreaterThan(before);
  return { before, after };
}

const storedNames = (page: Page) => page.locator("#stored li > span").allTextContents();

async function cancelledLeavesNothing(page: Page): Promise<void> {
  await page.selectOption("#method", "sparsegpt");
  await page.fill("#calibration-windows", "64");
  await page.fill("#result-name", "never");
  await page.click("#start");
  // Work on the blocks has begun.
  await page.locator("#compress .progress-text", { hasText: "block 1 of 6" }).waitFor();
  await page.click("#compress .cancel");
  await page.locator("#start:enabled").waitFor();
  expect(await page.locator("#compress .error").textContent()).toBe("");
  const directories = await page.evaluate(async () => {
    const store = await (await navigator.storage.getDirectory()).getDirectoryHandle("rarefy-models");
    const names: string[] = [];
    for await (const name of (store as unknown as { keys(): AsyncIterable<string> }).keys()) names.push(name);
    return names.length;
  });
  expect(directories).toBe(2);
  expect(await storedNames(page)).toEqual(["tiny-6m", "tiny-6m-wanda-50"]);
  // A name that is taken is refused before anything is done.
  await page.fill("#result-name", "tiny-6m-wanda-50");
  await page.click("#start");
  await page.locator("#compress .error", { hasText: "choose another name" }).waitFor();
  await page.click("#tab-compress");
  await page.selectOption("#method", "wanda");
}

async function reportReads(page: Page): Promise<void> {
  await page.getByRole("button", { name: "Report tiny-6m-wanda-50" }).click();
  await page.locator("#save-report:enabled").waitFor();
  const shown = page.frameLocator("#report-page");
  await shown.getByRole("heading", { name: "Before and after" }).waitFor();
  const download = page.waitForEvent("download");
  await page.click("#save-report");
  const saved = await download;
  expect(saved.suggestedFilename()).toBe("tiny-6m-wanda-50.html");
  const html = await readFile(await saved.path(), "utf8");
  expect(html).toContain("wanda");
  expect(html).toBe(await page.locator("#report-page").getAttribute("srcdoc"));
  const own = await page.context().newPage();
  await own.setContent(html);
  expect(await violations(own)).toEqual([]);
  await own.close();
}

async function insideIsShown(page: Page): Promise<void> {
  await page.click("#tab-inspect");
  await page.selectOption("#inspect-variant", { label: "A: tiny-6m, dense" });
  await page.click("#look");
  await page.locator("#inside svg").first().waitFor();
  // Six layers of four key heads, and seven projections.
  expect(await page.locator("#inside svg .cell").count()).toBe(6 * 4 + 6 * 7);
  const tokens = await page.locator("#inside .attention span").allTextContents();
  expect(tokens.join("")).toBe(await page.inputValue("#inspect-text"));
  const shares = await page
    .locator("#inside .attention span")
    .evaluateAll((spans) => spans.map((span) => Number.parseFloat((span as HTMLElement).title)));
  expect(shares.reduce((sum, share) => sum + share, 0)).toBeGreaterThan(97);
  expect(await violations(page)).toEqual([]);
}

/** At 390 px and in dark mode, in every panel. */
async function fitsPhonesInTheDark(page: Page): Promise<void> {
  await page.setViewportSize({ width: 390, height: 844 });
  await page.emulateMedia({ colorScheme: "dark" });
  for (const tab of ["chat", "compress", "inspect", "report"]) {
    await page.click(`#tab-${tab}`);
    expect([tab, await page.evaluate(() => document.documentElement.scrollWidth)]).toEqual([tab, 390]);
    expect(await violations(page)).toEqual([]);
  }
}

/** The archive opens in Node.js, and gives the perplexity that the page measured. */
async function exportAgrees(page: Page, before: number, after: number): Promise<void> {
  await page.getByRole("button", { name: "Export tiny-6m-wanda-50" }).first().click();
  expect(await violations(page)).toEqual([]);
  const download = page.waitForEvent("download");
  await page.click("#export-start");
  const archive = await download;
  expect(archive.suggestedFilename()).toBe("tiny-6m-wanda-50.zip");
  const entries = Object.entries(unzipSync(await readFile(await archive.path())));
  const files = memoryFiles("export", new Map(entries.map(([name, bytes]) => [basename(name), bytes])));
  expect(entries.every(([name]) => name.startsWith("tiny-6m-wanda-50/"))).toBe(true);

  const tokenizer = await loadTokenizer(files);
  const evaluated = await tokenizeText(tokenizer, await readFile(text("books-eval.txt"), "utf8"), { maxTokens: 1000 });
  using source = await openModel(directoryFiles(studioModel), { weights: "f32" });
  using pruned = await openModel(files, { weights: "f32" });
  const variants = [source, pruned].map(({ model, location }) => ({ name: location, model }));
  const [dense, sparse] = await evaluateQuality(variants, evaluated, measured);
  expect(dense.perplexity / before).toBeCloseTo(1, 4);
  expect(sparse.perplexity / after).toBeCloseTo(1, 4);
  const [{ matrices }] = compressionOf((await readArtifact({ files, location: "export" }))!)!.layers;
  expect(Object.values(matrices)[0].sparsity).toBeCloseTo(0.5);
}
