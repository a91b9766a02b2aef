// Builds one page with webpack, esbuild, Vite and Next (Turbopack) from the packed package, and lets each generate text in
// Chromium: isolated and not, with and without a content security policy. Ends in a table; exit 1 when a cell failed.
//   npm run build && node scripts/check-bundlers.mjs [BUNDLER …]
// The bundlers are packages of bench/bundlers/, installed when they are missing; nothing else is downloaded.
import { execFileSync } from "node:child_process";
import { cpSync, existsSync, mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build as viteBuild } from "vite";
import { findChromium, launchChromium, serve } from "../test/platform/browser.mjs";
import { unpackPacked } from "../test/support/installPacked.mjs";
import { readOptions } from "./options.mjs";

const { positionals } = readOptions({ allowPositionals: true });
const root = fileURLToPath(new URL("..", import.meta.url));
const pages = join(root, "bench/bundlers");
const scratch = mkdtempSync(join(tmpdir(), "rarefy-bundlers-"));

/** What hangs is found by waiting; a busy machine needs less than this by far. */
const patienceMs = 300_000;

if (!existsSync(join(pages, "node_modules/webpack"))) {
  execFileSync("npm", ["ci", "--ignore-scripts"], { cwd: pages, stdio: "inherit" });
}
const packaged = join(pages, "node_modules/rarefy");
rmSync(packaged, { recursive: true, force: true });
unpackPacked(packaged);
const require = createRequire(join(pages, "package.json"));

/** Each builds the page into a folder; warnings fail it as errors do. */
const bundlers = {
  async webpack(output) {
    const compiler = require("webpack")({
      mode: "production",
      context: pages,
      entry: "./main.js",
      output: { path: output, filename: "main.js" },
      performance: false,
    });
    const stats = await new Promise((done, fail) =>
      compiler.run((error, stats) => (error ? fail(error) : done(stats))),
    );
    await new Promise((closed) => compiler.close(closed));
    const { errors, warnings } = stats.toJson({ errors: true, warnings: true });
    if (errors.length + warnings.length > 0) throw new Error([...errors, ...warnings][0].message);
    cpSync(join(pages, "index.html"), join(output, "index.html"));
  },

  async esbuild(output) {
    const { warnings } = await require("esbuild").build({
      entryPoints: [join(pages, "main.js")],
      bundle: true,
      format: "esm",
      minify: true,
      outfile: join(output, "main.js"),
      logLevel: "silent",
    });
    if (warnings.length > 0) throw new Error(warnings[0].text);
    cpSync(join(pages, "index.html"), join(output, "index.html"));
  },

  async vite(output) {
    const said = [];
    const logger = { info() {}, warn: (m) => said.push(m), warnOnce: (m) => said.push(m), error: (m) => said.push(m) };
    await viteBuild({
      root: pages,
      configFile: false,
      customLogger: { ...logger, clearScreen() {}, hasErrorLogged: () => false, hasWarned: false },
      build: { outDir: output, emptyOutDir: true, chunkSizeWarningLimit: 2000 },
    });
    if (said.length > 0) throw new Error(said[0]);
  },

  async next(output) {
    const app = join(pages, "next");
    const env = { ...process.env, NEXT_TELEMETRY_DISABLED: "1" };
    try {
      execFileSync(process.execPath, [require.resolve("next/dist/bin/next"), "build", app], { env, stdio: "pipe" });
    } catch (error) {
      throw new Error(`${error.stdout}${error.stderr}`.slice(-2000));
    }
    cpSync(join(app, "out"), output, { recursive: true });
  },
};

const policy = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'";
const pagesOf = [
  { isolated: true },
  { isolated: false },
  { isolated: true, policy: `${policy}; worker-src blob:` },
  { isolated: true, policy },
  { isolated: false, policy },
];

async function generateIn(chromium, directory, { isolated, policy }, inlineScripts) {
  const allowed = inlineScripts ? policy?.replace("'self' '", "'self' 'unsafe-inline' '") : policy;
  const headers = allowed === undefined ? {} : { "Content-Security-Policy": allowed };
  const server = await serve({ "/": directory, "/models/": join(root, "models") }, { isolated, headers });
  const page = await chromium.newPage();
  const errors = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  let timer;
  try {
    await page.goto(`${server.origin}/index.html`);
    await page.waitForFunction("globalThis.generate !== undefined", undefined, { timeout: patienceMs });
    const hangs = new Promise((_, fail) => {
      timer = setTimeout(() => fail(new Error(`hangs (${patienceMs / 1000} s)`)), patienceMs);
    });
    return await Promise.race([page.evaluate("globalThis.generate()"), hangs]);
  } catch (error) {
    throw new Error([error.message, ...errors].join("; "));
  } finally {
    clearTimeout(timer);
    await page.close();
    await server.close();
  }
}

const { path, reason } = findChromium();
if (path === undefined) throw new Error(reason);
const unknown = positionals.filter((name) => bundlers[name] === undefined);
if (unknown.length > 0) throw new Error(`${unknown.join(", ")}: there are ${Object.keys(bundlers).join(", ")}`);
const wanted = positionals.length > 0 ? positionals : Object.keys(bundlers);
const chromium = await launchChromium(path);
const texts = new Set();
let failed = 0;
const row = (...cells) => console.log(cells.map((cell, i) => String(cell).padEnd([9, 10, 30][i] ?? 0)).join(" "));
row("bundler", "isolated", "policy", "outcome");
try {
  for (const name of wanted) {
    const output = join(scratch, name);
    try {
      await bundlers[name](output);
    } catch (error) {
      failed++;
      row(name, "", "", `does not build: ${error.message}`);
      continue;
    }
    for (const page of pagesOf) {
      const about = [
        name,
        page.isolated,
        page.policy?.includes("worker-src") ? "CSP, worker-src blob:" : page.policy ? "CSP" : "none",
      ];
      try {
        const { text, threads } = await generateIn(chromium, output, page, name === "next");
        texts.add(text);
        row(...about, `${threads} threads: ${JSON.stringify(text)}`);
      } catch (error) {
        failed++;
        row(...about, error.message.split("\n")[0]);
      }
    }
  }
  if (texts.size > 1) failed++;
} finally {
  await chromium.close();
  for (const folder of [scratch, packaged, join(pages, "next/out"), join(pages, "next/.next")])
    rmSync(folder, { recursive: true, force: true });
}
process.exitCode = failed > 0 ? 1 : 0;
console.log(failed > 0 ? `${failed} failed` : "all generate the same text");
