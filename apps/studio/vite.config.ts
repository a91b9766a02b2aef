import { defineConfig } from "vite";

/** A page with these headers is cross-origin isolated: only there may WebAssembly threads share memory. */
const headers = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};

export default defineConfig({
  base: "./",
  // A file that is not there must not be answered with the page.
  appType: "mpa",
  // The model and the calibration text that come with rarefy: ./tiny-6m/ and ./text/ beside the page.
  publicDir: "../../models",
  // The package's own build lies outside of this folder.
  server: { headers, fs: { allow: ["../.."] } },
  preview: { headers },
  worker: { format: "es" },
  build: { target: "es2023", chunkSizeWarningLimit: 2000 },
});
