import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parseModelConfig } from "../../src/arch/index.js";
import { createFile, memorySinks } from "../../src/io/byteSink.js";
import { openCheckpoint, writeGguf } from "../../src/io/index.js";
import { directoryFiles } from "../../src/io/index.node.js";
import { openModel } from "../../src/pipeline/index.js";
import { collect, generate } from "../../src/runtime/index.js";
import { loadTokenizer } from "../../src/text/index.js";
import { tiny6mGolden } from "../golden/golden.js";
import { goldenModel } from "../studio/models.js";
import { root } from "../support/rarefy.js";
import { findChromium } from "./browser.mjs";
import { studioModel as model, opened, openStudio, type Studio } from "./studio.js";
import { chatAndStop, withChatModel } from "./studioChat.js";
import { pruneAndExport } from "./studioFlow.js";

const { path, reason } = findChromium();
if (reason !== undefined) console.warn(`The tests of the studio were not run: ${reason}`);

const { greedyPrompt, greedy } = tiny6mGolden();
const tokens = 6;

describe.skipIf(path === undefined)("the studio in Chromium", () => {
  let studio: Studio;
  let scratch: string;
  let prompt: string;
  beforeAll(async () => {
    studio = await openStudio(path!);
    prompt = (await loadTokenizer(directoryFiles(model))).decode(greedyPrompt);
    scratch = await mkdtemp(join(tmpdir(), "rarefy-studio-"));
  });
  afterAll(async () => {
    await studio?.close();
    await rm(scratch, { recursive: true, force: true });
  });

  const chips = async (page: Page) => (await page.locator("#machine li").allTextContents()).join("\n");

  /** Lets the page write. @returns the tokens of every variant */
  async function written(page: Page, text: string): Promise<number[][]> {
    await page.fill("#prompt", text);
    await page.fill("#max-tokens", String(tokens));
    await page.click("#generate");
    // It is hidden while they write.
    await page.locator("#generate:visible").waitFor();
    expect(await page.locator("#chat .error").textContent()).toBe("");
    return page
      .locator("[data-variant]")
      .evaluateAll((variants) =>
        variants.map((variant) =>
          Array.from(variant.querySelectorAll<HTMLElement>("[data-id]"), ({ dataset }) => Number(dataset.id)),
        ),
      );
  }

  /** Lets the small model write, dense and sparse. */
  async function expectGoldenTokens(page: Page): Promise<void> {
    // Its template ends turns with a token at which it does not stop.
    expect(await page.locator("#template-note").textContent()).toContain("it seems to be a base model");
    const [dense, sparse] = await written(page, prompt);
    expect(dense).toEqual(greedy.slice(0, tokens));
    expect(sparse).toHaveLength(tokens);
    const variant = (at: number) => page.locator(`[data-variant="${at}"]`);
    const counts = (at: number) => variant(at).locator(".counts").textContent();
    expect(await counts(0)).toContain("(100 %), 0 % of inputs skipped");
    expect(await counts(1)).toMatch(/\(6\d %\), (4[5-9]|5\d) % of inputs skipped/);
    expect(await page.locator("#map canvas").count()).toBe(6 * 7);
    const titles = await page
      .locator("#map td")
      .evaluateAll((cells) => cells.map((cell) => (cell as HTMLElement).title));
    expect(titles[13]).toMatch(/^layer 1, down_proj: (4|5|6)\d % skipped$/);
  }

  test("loads a model from a URL, writes on WebGPU what Node.js does, and has the model after a reload", async () => {
    // A software GPU is slow, most of all at compiling: a model of two small layers, dense.
    const directory = join(scratch, "small");
    await mkdir(directory);
    for (const [name, bytes] of goldenModel("llama")) await writeFile(join(directory, name), bytes);
    await studio.visit({ gpu: true, isolated: true, mounts: { "/small/": directory } }, async (page) => {
      expect(await chips(page)).toMatch(/^WebGPU\n\d+ threads\n/);
      await page.selectOption("#device", "webgpu");
      await page.route("https://huggingface.co/**", (route) => route.fulfill({ status: 404 }));
      await page.fill("#url", "org/name");
      await page.click("#fetch-form button");
      await page.locator("#model .error", { hasText: "https://huggingface.co/org/name/resolve/main" }).waitFor();
      await page.fill("#url", "./small/");
      await page.click("#fetch-form button");
      await opened(page, "WebGPU on");
      await page.getByRole("button", { name: "Remove variant B" }).click();
      const text = "The house of the";
      expect(await written(page, text)).toEqual([await writtenInNode(directory, text)]);

      await page.reload();
      await page.route("**/small/**", (route) => route.abort());
      await page.selectOption("#device", "cpu");
      await page.getByRole("button", { name: "Open" }).click();
      await opened(page, "WebAssembly");
      await page.getByRole("button", { name: "Remove small" }).click();
      await page.locator("#stored-none").waitFor();
      await page.fill("#url", "./small/");
      await page.click("#fetch-form button");
      await page.locator("#model .error", { hasText: "no answer" }).waitFor();
    });
  });

  test("without GPU and isolation it says so, takes a dropped folder, and writes the golden tokens on WebAssembly", () =>
    studio.visit({ gpu: false, isolated: false }, async (page) => {
      expect(await chips(page)).toMatch(/^no WebGPU[^\n]+\n1 thread: this page is not cross-origin isolated/);
      await dropFolder(page, model);
      await opened(page, "WebAssembly SIMD");
      await expectGoldenTokens(page);
    }));

  test("a GGUF file is chosen, opened, and cancelled when it comes from a URL that does not answer", () =>
    studio.visit({ gpu: false, isolated: false }, async (page) => {
      await writeFile(join(scratch, "tiny.gguf"), await asGguf());
      await page.route("**/silent.gguf", () => {});
      await page.fill("#url", "./silent.gguf");
      await page.click("#fetch-form button");
      await page.click("#model .cancel");
      await page.locator("#model .task").waitFor({ state: "hidden" });
      expect(await page.locator("#model .error").textContent()).toBe("");
      await page.setInputFiles("#file", join(scratch, "tiny.gguf"));
      await opened(page, "WebAssembly SIMD");
      expect(await page.locator("#opened").textContent()).toContain("tiny.gguf is open: 6 layers");
    }));

  test("a model is pruned, compared, reported and looked into, and its export opens in Node.js with the same figures", () =>
    studio.visit({ gpu: false, isolated: true }, pruneAndExport));

  test("chats through a model's template, and forgets nothing when it is stopped", () =>
    withChatModel((mounts) => studio.visit({ gpu: false, isolated: false, mounts }, chatAndStop)));

  test("a chosen folder that holds no model is refused by name", () =>
    studio.visit({ gpu: false, isolated: false }, async (page) => {
      await page.setInputFiles("#folder", join(root, "models/text"));
      await page.locator("#model .error", { hasText: "text: there is no config.json" }).waitFor();
    }));
});

/** What the model writes in Node.js, greedily. */
async function writtenInNode(directory: string, prompt: string): Promise<number[]> {
  const files = directoryFiles(directory);
  const tokenizer = await loadTokenizer(files);
  using opened = await openModel(files);
  const { tokenIds } = await collect(
    generate(opened.model, Uint32Array.from(tokenizer.encode(prompt)), { maxTokens: tokens, temperature: 0 }),
  );
  return tokenIds;
}

/** The model as one GGUF file. */
async function asGguf(): Promise<Uint8Array> {
  const checkpoint = await openCheckpoint(directoryFiles(model));
  const config = parseModelConfig(checkpoint.config, "config.json");
  const written = new Map<string, Uint8Array>();
  await createFile(memorySinks(written), "m.gguf", (sink) =>
    writeGguf(sink, checkpoint, config, { type: "q8_0", name: "tiny" }),
  );
  await checkpoint.close();
  return written.get("m.gguf")!;
}

/** Drops a folder of this machine as a file manager would. */
async function dropFolder(page: Page, folder: string): Promise<void> {
  const box = (await page.locator("#drop").boundingBox())!;
  const session = await page.context().newCDPSession(page);
  for (const type of ["dragEnter", "dragOver", "drop"] as const) {
    await session.send("Input.dispatchDragEvent", {
      type,
      x: box.x + box.width / 2,
      y: box.y + box.height / 2,
      data: { items: [], files: [folder], dragOperationsMask: 1 },
    });
  }
}
