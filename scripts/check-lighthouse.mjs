// What Lighthouse says of the site's start page and of the studio, on a desktop and on a phone:
//   npm run site && node scripts/check-lighthouse.mjs [--site DIR] [--pages start,studio] [--sizes desktop,phone] [--least 90]
// Prints performance, accessibility, best practices and SEO out of 100, when the largest part of the page was there, how long scripts kept
// it from answering, and what points are lost for. Exit code 1 where a figure but that of performance, which a busy machine spoils, is under
// --least. Chromium is the one that tests use; a phone is simulated, with a slow network and processor. Lighthouse is a package of bench/lighthouse/ (Node.js 22.19 or later), installed when it is missing.
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { bundlePage, findChromium, serve } from "../test/platform/browser.mjs";
import { readOptions } from "./options.mjs";

const root = join(import.meta.dirname, "..");
const { values } = readOptions({
  options: {
    site: { type: "string", default: join(root, "site/dist") },
    pages: { type: "string", default: "start,studio" },
    sizes: { type: "string", default: "desktop,phone" },
    least: { type: "string", default: "90" },
  },
});
const tools = join(root, "bench/lighthouse");
if (!existsSync(join(tools, "node_modules"))) {
  execFileSync("npm", ["ci", "--ignore-scripts"], { cwd: tools, stdio: "inherit" });
}
const require = createRequire(join(tools, "package.json"));
const load = (name) => import(pathToFileURL(require.resolve(name)).href);
const { default: lighthouse, desktopConfig } = await load("lighthouse");
const { launch } = await load("chrome-launcher");

const { path, reason } = findChromium();
if (reason !== undefined) throw new Error(reason);

/** What each page is served from. */
const pages = {
  start: async () => ({ mounts: { "/": values.site }, isolated: false, async close() {} }),
  async studio() {
    const bundle = await bundlePage(join(root, "apps/studio"));
    const models = join(root, "models");
    const mounts = { "/": bundle.directory, "/tiny-6m/": join(models, "tiny-6m"), "/text/": join(models, "text") };
    return { mounts, isolated: true, close: bundle.remove };
  },
};
const sizes = { desktop: desktopConfig, phone: undefined };
const categories = ["performance", "accessibility", "best-practices", "seo"];

let failed = false;
const row = (...cells) => console.log(cells.map((cell, i) => String(cell).padEnd(i < 2 ? 9 : 15)).join(" "));
row("page", "size", ...categories, "largest paint", "blocked");
for (const page of values.pages.split(",")) {
  const { mounts, isolated, close } = await pages[page]();
  const server = await serve(mounts, { isolated });
  const flags = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
  ];
  const chrome = await launch({ chromePath: path, chromeFlags: flags });
  try {
    for (const size of values.sizes.split(",")) {
      const url = `${server.origin}/index.html`;
      const settings = { port: chrome.port, onlyCategories: categories, logLevel: "error" };
      const { lhr } = await lighthouse(url, settings, sizes[size]);
      if (lhr.runtimeError !== undefined) throw new Error(lhr.runtimeError.message);
      const scores = categories.map((id) => Math.round(100 * lhr.categories[id].score));
      const seconds = (audit) => `${(lhr.audits[audit].numericValue / 1000).toFixed(2)} s`;
      row(page, size, ...scores, seconds("largest-contentful-paint"), seconds("total-blocking-time"));
      if (scores.slice(1).some((score) => score < Number(values.least))) failed = true;
      for (const id of categories)
        for (const { id: audit, weight } of lhr.categories[id].auditRefs) {
          const { score, title, displayValue = "" } = lhr.audits[audit];
          if (weight > 0 && score !== null && score < 0.9) console.log(`  ${id}: ${title} ${displayValue}`.trimEnd());
        }
    }
  } finally {
    await chrome.kill();
    await server.close();
    await close();
  }
}
process.exitCode = failed ? 1 : 0;
