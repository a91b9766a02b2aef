import type { Page } from "playwright-core";

export interface StaticServer {
  /** "http://127.0.0.1:PORT", a free port. */
  origin: string;
  close(): Promise<void>;
}

/**
 * Serves files of this machine to this machine, with byte ranges and in a stream, so that files of gigabytes pass.
 * @param mounts directory by URL prefix, each ending in "/": `{ "/models/": "models" }`; the longest matching prefix wins
 * @param options.headers sent with every file
 */
export function serve(
  mounts: Readonly<Record<string, string>>,
  options: { isolated: boolean; headers?: Readonly<Record<string, string>> },
): Promise<StaticServer>;

export interface Bundle {
  directory: string;
  remove(): Promise<void>;
}

/**
 * Bundles a page with Vite, as an application would, taking the built package in dist/ where the page imports src/.
 * @param page directory with an index.html
 * @param packages files that take the place of packages, by their names
 */
export function bundlePage(page: string, packages?: Readonly<Record<string, string>>): Promise<Bundle>;

/** CHROMIUM_PATH when set, else the first Chromium or Chrome on PATH; without one, the reason. */
export function findChromium(): { path: string; reason?: undefined } | { path?: undefined; reason: string };

export interface Chromium {
  version: string;
  newPage(): Promise<Page>;
  close(): Promise<void>;
}

/**
 * Starts it headless with an empty profile of its own, which `close` removes.
 * @param options.gpu whether pages find a GPU, played by the CPU; default false
 */
export function launchChromium(path: string, options?: { gpu?: boolean }): Promise<Chromium>;
