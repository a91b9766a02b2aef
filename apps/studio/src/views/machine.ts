import type { Machine } from "../protocol.js";
import { element, made } from "./page.js";

/** What this browser offers, as a line under the title. */
export function showMachine({ gpu, isolated, threads, storage }: Machine): void {
  const chip = (good: boolean, textContent: string, title: string) =>
    made("li", { className: good ? "good" : "missing", textContent, title });
  const free = (storage.quotaBytes ?? 0) - (storage.usedBytes ?? 0);
  element("machine").replaceChildren(
    chip(gpu.usable, gpu.usable ? "WebGPU" : "no WebGPU: models run on the CPU", gpu.detail),
    chip(
      isolated,
      isolated
        ? `${threads} threads`
        : "1 thread: this page is not cross-origin isolated (its server must send the headers " +
            "Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp)",
      "WebAssembly threads need shared memory, which only a cross-origin isolated page has",
    ),
    chip(free > 0, `${(free / 1e9).toPrecision(2)} GB for models`, "what the browser lets this page store"),
  );
}
