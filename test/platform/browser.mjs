// Headless Chromium on pages served from this process: what the browser tests and the browser benchmarks stand on.
// Plain JavaScript because bench/ runs it under Node without a build; types in browser.d.mts.

import { accessSync, constants, createReadStream } from "node:fs";
import { mkdtemp, rm, stat } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { delimiter, extname, join, resolve, sep } from "node:path";
import { chromium } from "playwright-core";
import { build } from "vite";

const contentTypes = {
  ".html": "text/html; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".mjs": "text/javascript; charset=utf-8",
  ".json": "application/json",
  ".wasm": "application/wasm",
};

/** Two headers make a page cross-origin isolated, and only such a page has SharedArrayBuffer and with it threads. */
const isolationHeaders = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};

export async function serve(mounts, { isolated, headers = {} }) {
  const server = createServer((request, response) => {
    answer(request, response).catch((error) => {
      if (!response.headersSent) response.writeHead(error.code === "ENOENT" ? 404 : 500);
      response.end();
    });
  });

  async function answer(request, response) {
    const path = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
    const prefix = Object.keys(mounts)
      .filter((mount) => path.startsWith(mount))
      .sort((a, b) => b.length - a.length)[0];
    const root = prefix && resolve(mounts[prefix]);
    const file = root && resolve(root, path.slice(prefix.length));
    if (!file?.startsWith(root + sep)) return response.writeHead(404).end();

    const { size } = await stat(file);
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
    const start = range ? Number(range[1]) : 0;
    const end = range?.[2] ? Math.min(Number(range[2]), size - 1) : size - 1;
    if (range && start > end) return response.writeHead(416, { "Content-Range": `bytes */${size}` }).end();
    response.writeHead(range ? 206 : 200, {
      "Content-Type": contentTypes[extname(file)] ?? "application/octet-stream",
      "Content-Length": end - start + 1,
      "Accept-Ranges": "bytes",
      "Cache-Control": "no-store",
      ...(range ? { "Content-Range": `bytes ${start}-${end}/${size}` } : {}),
      ...(isolated ? isolationHeaders : {}),
      ...headers,
    });
    if (request.method === "HEAD" || size === 0) return response.end();
    createReadStream(file, { start, end, highWaterMark: 2 ** 20 })
      .on("error", () => response.destroy())
      .pipe(response);
  }

  await new Promise((ready, fail) => server.once("error", fail).listen(0, "127.0.0.1", ready));
  return {
    origin: `http://127.0.0.1:${server.address().port}`,
    async close() {
      server.closeAllConnections();
      await new Promise((closed) => server.close(closed));
    },
  };
}

export async function bundlePage(page, packages = {}) {
  const directory = await mkdtemp(join(tmpdir(), "rarefy-page-"));
  await build({
    root: page,
    configFile: false,
    logLevel: "error",
    base: "./",
    // Tests are written against src/ so that the type checker sees it; pages get what applications get.
    resolve: {
      alias: [
        { find: /^(\.\.\/)+src\//, replacement: resolve(import.meta.dirname, "../../dist") + sep },
        ...Object.entries(packages).map(([find, replacement]) => ({ find: new RegExp(`^${find}$`), replacement })),
      ],
    },
    worker: { format: "es" },
    build: { outDir: directory, emptyOutDir: true, target: "es2023", chunkSizeWarningLimit: 2000 },
  });
  return { directory, remove: () => rm(directory, { recursive: true, force: true }) };
}

export function findChromium() {
  const named = process.env.CHROMIUM_PATH;
  const names = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"];
  const candidates = named
    ? [named]
    : (process.env.PATH ?? "").split(delimiter).flatMap((directory) => names.map((name) => join(directory, name)));
  const path = candidates.find(isExecutable);
  if (path) return { path };
  return {
    reason: named
      ? `CHROMIUM_PATH=${named} cannot be run`
      : `no ${names.join(", ")} on PATH; set CHROMIUM_PATH to name one`,
  };
}

function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/**
 * WebGPU played by the CPU, for machines without a GPU. It clears the memory of workgroups in a loop of the shader: where Dawn
 * leaves that to Vulkan, SwiftShader compiles a store for each word, which takes most of the time of most kernels.
 */
const softwareGpu = [
  "--enable-unsafe-webgpu",
  "--use-webgpu-adapter=swiftshader",
  "--disable-dawn-features=use_vulkan_zero_initialize_workgroup_memory_extension",
];

/** Only what hangs reaches it: browsers share the machine with everything else that tests run. */
const patienceMs = 1_800_000;

export async function launchChromium(path, { gpu = false } = {}) {
  const profile = await mkdtemp(join(tmpdir(), "rarefy-chromium-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: path,
    headless: true,
    timeout: patienceMs,
    args: [
      ...(process.getuid?.() === 0 ? ["--no-sandbox"] : []), // Chromium's sandbox refuses to start as root.
      "--disable-gpu",
      ...(gpu ? softwareGpu : []),
      "--disable-quic",
      "--disable-dev-shm-usage",
      "--no-first-run",
      // Nothing here may reach beyond this machine.
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
  context.setDefaultTimeout(patienceMs);
  return {
    version: context.browser()?.version() ?? "",
    newPage: () => context.newPage(),
    async close() {
      await context.close();
      await rm(profile, { recursive: true, force: true });
    },
  };
}
