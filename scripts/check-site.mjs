// Builds the documentation site and looks at it as its readers do:   npm run build && node scripts/check-site.mjs [--built]
// Every link inside of the site leads somewhere; the start page, a page and the API open in Chromium at two sizes, light and
// dark, without an error in the console and without a violation that axe finds; the demo writes, on one thread as without
// isolation headers. Screenshots go to site/screenshots. Exit code 1 when anything is wrong. --built takes site/dist as it is.
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { findChromium, launchChromium, serve } from "../test/platform/browser.mjs";

const { values: options } = parseArgs({ options: { built: { type: "boolean", default: false } } });
const site = join(import.meta.dirname, "../site");
const dist = join(site, "dist");
const screenshots = join(site, "screenshots");

if (!options.built) execFileSync(process.execPath, [join(site, "build.mjs")], { stdio: "inherit" });

const broken = brokenLinks();
for (const link of broken) console.log(`broken: ${link}`);
const faults = await openInChromium();
console.log(`${broken.length} broken links, ${faults} faults in Chromium`);
process.exitCode = broken.length + faults === 0 ? 0 : 1;

/** Links and sources of all built pages that name no file of the site, or no heading of it. */
function brokenLinks() {
  const pages = readdirSync(dist, { recursive: true, encoding: "utf8" }).filter((path) => path.endsWith(".html"));
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
  let faults = 0;
  try {
    for (const [name, address] of [
      ["start", "index.html"],
      ["page", "docs/pruning.html"],
      ["api", "api/index.html"],
    ]) {
      const page = await chromium.newPage();
      const errors = [];
      page.on("pageerror", (error) => errors.push(String(error)));
      page.on("console", (message) => {
        // A model need not have these, which Chromium reports.
        const optional = /\/(rarefy|model\.safetensors\.index|chat_template)\.json$/.test(message.location().url);
        if (message.type() === "error" && !optional) errors.push(message.text());
      });
      await page.goto(`${server.origin}/${address}`);
      if (name === "start") await runDemo(page);
      for (const [size, viewport] of Object.entries({
        desktop: { width: 1280, height: 900 },
        phone: { width: 390, height: 844 },
      }))
        for (const colorScheme of ["light", "dark"]) {
          await page.setViewportSize(viewport);
          await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
          await page.evaluate(() => scrollTo(0, 0));
          await page.screenshot({
            path: join(screenshots, `${name}-${size}-${colorScheme}.png`),
            fullPage: name === "start",
          });
          const violations = await axe(page);
          const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
          if (overflow > 0) errors.push(`${overflow} pixels wider than the ${size}'s window`);
          console.log(`${name}, ${size}, ${colorScheme}: ${violations.length} violations`);
          for (const violation of violations) console.log(`  ${violation}`);
          faults += violations.length;
        }
      for (const error of errors) console.log(`${name}: ${error}`);
      faults += errors.length;
      await page.close();
    }
  } finally {
    await chromium.close();
    await server.close();
  }
  return faults;
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
