import { ModelStore } from "rarefy/io";
import { openBackend } from "rarefy/kernels";
import type { Machine, ModelCalls } from "../protocol.js";
import { serve } from "../rpc.js";
import { chat } from "./chat.js";
import { removeSaved } from "./exportFolder.js";
import { job } from "./job.js";
import { Session } from "./session.js";
import { Sessions } from "./sessions.js";
import { filesOf } from "./source.js";

// Everything that runs a model is done here, so that the page stays responsive.

let openStore: ModelStore | undefined;
const sessions = new Sessions(async (request, context) =>
  Session.open(await (await store()).files(request.location), request, context),
);

serve<ModelCalls>({
  machine,
  list: async () => (await store()).list(),
  store: async (source, context) => (await store()).add(await filesOf(source, context.signal), job(context)),
  async remove(location) {
    await sessions.close(location);
    await (await store()).remove(location);
    return undefined;
  },
  async removeSaved() {
    await removeSaved();
    return undefined;
  },
  open: async (request, context) => (await sessions.open(request, context)).description,
  async keep(locations) {
    sessions.keep(locations);
    return undefined;
  },
  chat: (request, context) => chat(request, (location) => sessions.get(location), context),
  async inspect(request, context) {
    const { inspect } = await import("./inspect.js");
    return inspect(request, sessions.get(request.location), context);
  },
});

/** Opened once; tried again after a failure. */
async function store(): Promise<ModelStore> {
  openStore ??= await ModelStore.open();
  return openStore;
}

/** The GPU by its name. Only asked for: its kernels are checked when a model is opened on it, which takes a while. */
async function graphics(): Promise<Machine["gpu"]> {
  const adapter = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" });
  if (adapter) {
    const { vendor, architecture, description } = adapter.info;
    return { usable: true, detail: `WebGPU on ${description || [vendor, architecture].filter(Boolean).join(" ")}` };
  }
  // Says why there is none.
  const failure = openBackend("webgpu").then(
    (backend) => backend[Symbol.dispose](),
    (error: Error) => error.message,
  );
  return { usable: false, detail: (await failure) ?? "this browser gives no GPU" };
}

/** What the browser offers. */
async function machine(): Promise<Machine> {
  const gpu = await graphics();
  const { usage, quota } = await navigator.storage.estimate();
  const isolated = globalThis.crossOriginIsolated;
  const threads = isolated ? navigator.hardwareConcurrency : 1;
  return { gpu, isolated, threads, storage: { usedBytes: usage, quotaBytes: quota } };
}
