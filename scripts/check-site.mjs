// Builds the documentation site and looks at it as its readers do:   npm run build && node scripts/check-site.mjs [--built]
// Every link inside of the site leads somewhere; every page opens in Chromium without an error in the console; axe finds nothing in
// the start page, a page and the API, at two sizes, light and dark; the demo writes, on one thread as without isolation headers.
// Screenshots go to site/screenshots. Exit code 1 when anything is wrong. --built takes site/dist as it is.
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { findChromium, launchChromium, serve } from "../test/platform/browser.mjs";
import { readOptions } from "./options.mjs";

const { values: options } = readOptions({ options: { built: { type: "boolean", default: false } } });
const site = join(import.meta.dirname, "../site");
const dist = join(site, "dist");
const screenshots = join(site, "screenshots");

/** Pages that axe looks at, and their screenshots' names. */
const looked = { "index.html": "start", "docs/pruning.html": "page", "api/index.html": "api" };
const sizes = { desktop: { width: 1280, height: 900 }, phone: { width: 390, height: 844 } };

if (!options.built) execFileSync(process.execPath, [join(site, "build.mjs")], { stdio: "inherit" });

const broken = brokenLinks();
for (const link of broken) console.log(`broken: ${link}`);
const faults = await openInChromium();
console.log(`${broken.length} broken links, ${faults} faults in Chromium`);
process.exitCode = broken.length + faults === 0 ? 0 : 1;

function htmlFiles() {
  return readdirSync(dist, { recursive: true, encoding: "utf8" }).filter((path) => path.endsWith(".html"));
}

/** Links and sources of all built pages that name no file of the site, or no heading of it. */
function brokenLinks() {
  const pages = htmlFiles();
  const source = (path) => readFileSync(join(dist, path), "utf8");
  const ids = new Map();
  const idsOf = (path) => {
    if (!ids.has(path)) ids.set(path, new Set(Array.from(source(path).matchAll(/ id="([^"]+)"/g), ([, id]) => id)));
    return ids.get(path);
  };
  const found = pages.flatMap((page) =>
    Array.from(source(page).matchAll(/ (?:href|src)="([^"]+)"/g), ([, link]) => link)
      .filter((link) => !/^(?:[a-z]+:|\/\/)/.test(link))
      .filter((link) => {
        const { pathname, hash } = new URL(link.replaceAll("&amp;", "&"), `http://site/${page}`);
        const path = decodeURIComponent(pathname).replace(/\/$/, "/index.html").slice(1);
        const file = [path, `${path}.html`].find(
          (name) => existsSync(join(dist, name)) && statSync(join(dist, name)).isFile(),
        );
        if (file === undefined) return true;
        return hash !== "" && file.endsWith(".html") && !idsOf(file).has(decodeURIComponent(hash.slice(1)));
      })
      .map((link) => `${page}: ${link}`),
  );
  console.log(`${pages.length} pages`);
  return [...new Set(found)];
}

/** @returns how many errors, violations and overflows there were */
async function openInChromium() {
  const { path, reason } = findChromium();
  if (reason !== undefined) throw new Error(reason);
  mkdirSync(screenshots, { recursive: true });
  const server = await serve({ "/": dist }, { isolated: false });
  const chromium = await launchChromium(path);
  const found = [];
  try {
    const page = await chromium.newPage();
    let name;
    const report = (fault) => found.push(`${name}: ${fault}`);
    page.on("pageerror", (error) => report(error));
    page.on("console", (message) => {
      // A model need not have these, which Chromium reports.
      const optional = /\/(rarefy|model\.safetensors\.index|chat_template)\.json$/.test(message.location().url);
      if (message.type() === "error" && !optional) report(message.text());
    });
    for (name of htmlFiles().filter((file) => !file.startsWith("examples/"))) {
      await page.goto(`${server.origin}/${name}`);
      await page.waitForFunction(() => document.querySelector("#app")?.__vue_app__ !== undefined);
      if (name === "index.html") await runDemo(page);
      if (looked[name] !== undefined) await look(page, looked[name], report);
    }
  } finally {
    await chromium.close();
    await server.close();
  }
  for (const fault of found) console.log(fault);
  return found.length;
}

/** What axe finds, and what is wider than the window, at two sizes, light and dark. */
async function look(page, name, report) {
  for (const [size, viewport] of Object.entries(sizes))
    for (const colorScheme of ["light", "dark"]) {
      const view = `${name}-${size}-${colorScheme}`;
      await page.setViewportSize(viewport);
      await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
      await page.evaluate(() => scrollTo(0, 0));
      await page.screenshot({ path: join(screenshots, `${view}.png`), fullPage: name === "start" });
      const violations = await axe(page);
      console.log(`${view}: ${violations.length} violations`);
      for (const violation of violations) report(`${view}: ${violation}`);
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      if (overflow > 0) report(`${view}: ${overflow} pixels wider than the window`);
    }
}

/** Lets the demo write, then write again with another share; prints what it shows. */
async function runDemo(page) {
  const demo = page.locator(".demo");
  const finished = async () => {
    await page.locator('.demo[data-state="done"], .demo[data-state="failed"]').waitFor();
    if ((await demo.getAttribute("data-state")) === "failed")
      throw new Error(await demo.getByRole("status").textContent());
    return demo.locator("article").allInnerTexts();
  };
  await demo.locator("button").click();
  const [, first] = await finished();
  await demo.locator("input[type=range]").fill("0.3");
  await page.locator('.demo[data-state="busy"]').waitFor();
  const [dense, second] = await finished();
  console.log([dense, first, second].map((text) => text.replace(/\s+/g, " ")).join("\n"));
  const megabytes = [dense, second, first].map((text) => Number(/per token\s+([\d.]+)/.exec(text)?.[1]));
  if (!(megabytes[0] > megabytes[1] && megabytes[1] > megabytes[2] && megabytes[2] > 0))
    throw new Error(`the more is skipped, the less is to be read, not ${megabytes.join(", ")} MB`);
}

async function axe(page) {
  await page.addScriptTag({ path: join(site, "node_modules/axe-core/axe.min.js") });
  const violations = await page.evaluate(async () => (await globalThis.axe.run()).violations);
  return violations.map(
    ({ id, nodes }) =>
      `${id}: ${nodes
        .map(({ target }) => target.join(" "))
        .slice(0, 4)
        .join("; ")}`,
  );
}
