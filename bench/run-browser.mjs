// rarefy against wllama in one headless Chromium, taking turns, each engine in a page of its own that is closed after its turn.
//
//   node run-browser.mjs [--model .models/llama-1.1b] [--threads 2] [--rounds 3] [--prompt 128] [--tokens 16]
//                        [--weights q8] [--sparsity 0.5] [--backend wasm] [--out result.json]

import { join } from "node:path";
import { bundlePage } from "../test/platform/browser.mjs";
import { runMatch } from "./match.mjs";
import { openBrowser, openWllama, serveBench } from "./peer-wllama.mjs";

async function open(directory) {
  const bundle = await bundlePage(join(import.meta.dirname, "page"));
  const server = await serveBench(directory, { "/ours/": bundle.directory });
  const browser = await openBrowser();
  return {
    peerName: "wllama",
    openPeer: (file, { threads }) => openWllama(file, { threads, browser, origin: server.origin }),
    openOurs: (options) => openOursInPage(browser, server.origin, options),
    async close() {
      await browser.close();
      await server.close();
      await bundle.remove();
    },
  };
}

/** The same shape as openOurs, with the engine in a page. */
async function openOursInPage(browser, origin, options) {
  const page = await browser.newPage();
  page.on("pageerror", (error) => console.error(`rarefy page: ${error}`));
  await page.goto(`${origin}/ours/index.html`);
  const { sparsities, ...info } = await page.evaluate((options) => globalThis.open("/model/", options), options);
  return {
    ...info,
    variants: sparsities.map((sparsity, variant) => ({
      sparsity,
      async measure(job) {
        await page.bringToFront();
        return page.evaluate(([variant, job]) => globalThis.measure(variant, job), [variant, job]);
      },
    })),
    dispose: () => page.close(),
  };
}

await runMatch(open, { rounds: "3", tokens: "16", weights: "q8" });
