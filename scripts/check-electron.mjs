// Builds the example for Electron from the packed package: its types are checked against Electron's own, and its main process, preload and
// page are bundled.   npm run build && node scripts/check-electron.mjs
// Where Electron's program is there (`npx install-electron` in bench/bundlers downloads it; nothing here does), the window is opened and writes.
// Elsewhere the main process runs in plain Node.js with a stand-in for what it imports, and the model's process in a thread of it. Exit
// code 1 where a step fails. Electron and esbuild are packages of bench/bundlers/, installed when they are missing.
import { execFileSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { generateText, loadTokenizer, openModel } from "rarefy";
import { resolveModel } from "rarefy/io/node";
import { unpackPacked } from "../test/support/installPacked.mjs";
import { readOptions } from "./options.mjs";

readOptions();
const root = join(import.meta.dirname, "..");
const tools = join(root, "bench/bundlers");
if (!existsSync(join(tools, "node_modules/electron"))) {
  execFileSync("npm", ["ci", "--ignore-scripts"], { cwd: tools, stdio: "inherit" });
}
const require = createRequire(join(tools, "package.json"));
const packaged = join(tools, "node_modules/rarefy");
const electron = join(tools, "node_modules/electron");
rmSync(packaged, { recursive: true, force: true });
// Beside node_modules, so that the example finds what it imports.
const app = mkdtempSync(join(tools, "electron-"));
const prompt = "It was a dark night";
const maxTokens = 12;
try {
  unpackPacked(packaged);
  cpSync(join(root, "examples/electron"), app, { recursive: true });
  checkTypes();
  console.log("types: as Electron's and rarefy's say");
  const built = await bundle();
  console.log(`bundles: ${Object.entries(built).map(([name, bytes]) => `${name} ${bytes} bytes`)}`);
  const written = existsSync(join(electron, "path.txt")) ? await inElectron() : await inNode();
  const expected = await text();
  if (written.text !== expected)
    throw new Error(`it wrote ${JSON.stringify(written.text)}, not ${JSON.stringify(expected)}`);
  console.log(`${written.where}: ${JSON.stringify(expected)}`);
} finally {
  for (const folder of [app, packaged]) rmSync(folder, { recursive: true, force: true });
}

function checkTypes() {
  const compilerOptions = {
    ...{ module: "NodeNext", target: "ES2023", lib: ["ES2023", "DOM", "DOM.Iterable", "ESNext.Disposable"] },
    ...{ allowJs: true, checkJs: true, noEmit: true, skipLibCheck: true, types: [join(electron, "electron.d.ts")] },
  };
  const files = ["main.mjs", "preload.cjs", "model.mjs", "page.mjs"];
  writeFileSync(join(app, "tsconfig.json"), JSON.stringify({ compilerOptions, files }));
  execFileSync(process.execPath, [join(root, "node_modules/typescript/bin/tsc"), "-p", app], { stdio: "inherit" });
}

/** @returns bytes of each file; warnings fail as errors do */
async function bundle() {
  const { build } = require("esbuild");
  const parts = {
    // Its own files lie beside the package's: workers, kernels and models are found by where they are.
    "main.mjs": { platform: "node", format: "esm", external: ["electron"] },
    "model.mjs": { platform: "node", format: "esm", packages: "external" },
    "preload.cjs": { platform: "node", format: "cjs", external: ["electron"] },
    "page.mjs": { platform: "browser", format: "esm" },
  };
  const sizes = {};
  for (const [name, options] of Object.entries(parts)) {
    const outfile = join(app, "built", name);
    const { warnings } = await build({
      ...options,
      entryPoints: [join(app, name)],
      bundle: true,
      minify: true,
      outfile,
      logLevel: "silent",
    });
    if (warnings.length > 0) throw new Error(`${name}: ${warnings[0].text}`);
    sizes[name] = readFileSync(outfile).length;
  }
  cpSync(join(app, "index.html"), join(app, "built/index.html"));
  return sizes;
}

/** What the same model writes here. */
async function text() {
  const files = await resolveModel("tiny-6m");
  const opened = await openModel(files, { weights: "q8" });
  let written = "";
  for await (const step of generateText(opened.model, await loadTokenizer(files), prompt, { maxTokens }))
    written += step.text;
  opened[Symbol.dispose]();
  return written;
}

async function inElectron() {
  const { _electron } = await import("playwright-core");
  const started = await _electron.launch({
    executablePath: require("electron"),
    args: [join(app, "built/main.mjs"), "--no-sandbox"],
  });
  try {
    const window = await started.firstWindow();
    await window.fill("input", prompt);
    await window.click("button:enabled");
    await window.locator("form.done").waitFor();
    const answer = await window.locator("p").textContent();
    return { where: "a window of Electron wrote", text: answer.slice(prompt.length) };
  } finally {
    await started.close();
  }
}

/** Runs the bundled main process; this script is its page. */
async function inNode() {
  const standIn = join(app, "built/node_modules/electron");
  mkdirSync(standIn, { recursive: true });
  cpSync(join(root, "scripts/electron/standIn.mjs"), join(standIn, "index.mjs"));
  cpSync(join(root, "scripts/electron/parentPort.mjs"), join(standIn, "parentPort.mjs"));
  writeFileSync(join(standIn, "package.json"), JSON.stringify({ type: "module", exports: "./index.mjs" }));
  const { connect, quit, windows } = await import(pathToFileURL(join(standIn, "index.mjs")).href);
  await import(pathToFileURL(join(app, "built/main.mjs")).href);
  const [{ options, file }] = windows;
  if (!existsSync(options.webPreferences.preload) || !existsSync(file))
    throw new Error("the window's files are not there");
  const port = await connect();
  let written = "";
  await new Promise((done, fail) => {
    port.on("message", (answer) => {
      written += answer.text ?? "";
      if (answer.done) done();
      if (answer.error) fail(new Error(answer.error));
    });
    port.postMessage({ prompt, maxTokens });
  });
  port.close();
  await quit();
  return {
    where: "Electron's program is not there; in plain Node.js the main process and the model's wrote",
    text: written,
  };
}
