import type { StoredModel } from "rarefy/io";
import type { DeviceId } from "rarefy/kernels";
import type { WeightFormatId } from "rarefy/pack";
import { droppedFolder, pickedFile, pickedFolder } from "./folder.js";
import { HeatMap } from "./heatMap.js";
import { element, megabytes, percent } from "./page.js";
import {
  type CompareRequest,
  type Generated,
  type GeneratedToken,
  type Machine,
  type ModelSource,
  type OpenedModel,
  type Side,
  sides,
  sparsities,
} from "./protocol.js";
import { Client } from "./rpc.js";
import { cancelTask, task } from "./task.js";

const channel = new MessageChannel();
new Worker(new URL("./worker.ts", import.meta.url), { type: "module" }).postMessage(undefined, [channel.port1]);
const worker = new Client(channel.port2);
const map = new HeatMap(element("map"));
let opened: OpenedModel | undefined;

// --- what this browser offers ----------------------------------------------------------------------------------------

function showMachine({ gpu, isolated, threads, storage }: Machine): void {
  const chip = (good: boolean, text: string, title: string) =>
    Object.assign(document.createElement("li"), { className: good ? "good" : "missing", textContent: text, title });
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

// --- models ----------------------------------------------------------------------------------------------------------

async function showStored(): Promise<void> {
  const models = await worker.call("list", undefined);
  element("stored-none").hidden = models.length > 0;
  element("stored").replaceChildren(...models.map(storedRow));
}

function storedRow(model: StoredModel): HTMLLIElement {
  const { location, complete, byteLength, storedBytes } = model;
  const button = (text: string, action: () => unknown) => {
    const made = Object.assign(document.createElement("button"), { type: "button", textContent: text });
    made.addEventListener("click", action);
    return made;
  };
  const name = Object.assign(document.createElement("span"), { textContent: shortName(location), title: location });
  const state = complete ? megabytes(byteLength) : `${percent(storedBytes / byteLength)} of ${megabytes(byteLength)}`;
  const row = document.createElement("li");
  row.classList.toggle("current", opened?.location === location);
  row.append(
    name,
    Object.assign(document.createElement("small"), { textContent: state }),
    ...(complete ? [button("Open", () => open(location))] : []),
    ...(!complete && URL.canParse(location) ? [button("Resume", () => store({ url: location }))] : []),
    button("Remove", () => confirm(`Remove ${shortName(location)} from this browser?`) && remove(location)),
  );
  return row;
}

const shortName = (location: string) =>
  location
    .replace(/\/resolve\/main\/$/, "")
    .split("/")
    .filter(Boolean)
    .pop() ?? location;

async function store(source: ModelSource): Promise<void> {
  // Without this the browser may drop what is stored when it runs short of room.
  await navigator.storage.persist?.();
  const model = await task((onEvent, signal) => {
    onEvent({
      type: "progress",
      stage: `asking ${"url" in source ? source.url : source.folder}`,
      done: 0,
      unit: "bytes",
      elapsedMs: 0,
    });
    return worker.call("store", source, { onEvent, signal });
  });
  await showStored();
  if (model !== undefined) await open(model.location);
}

async function open(location: string): Promise<void> {
  opened = undefined;
  const device = element<HTMLSelectElement>("device").value as DeviceId;
  const weights = (element<HTMLSelectElement>("weights").value || undefined) as WeightFormatId | undefined;
  const request = { location, device, weights, base: document.baseURI };
  opened = await task((onEvent, signal) => worker.call("open", request, { onEvent, signal }));
  if (opened === undefined && element("error").textContent !== "")
    element("error").append(" If its files are damaged, remove it below and load it again.");
  showOpened();
  await showStored();
}

async function remove(location: string): Promise<void> {
  if (opened?.location === location) opened = undefined;
  await task(() => worker.call("remove", location));
  showOpened();
  await showStored();
}

function showOpened(): void {
  const choice = element<HTMLSelectElement>("sparsity");
  element<HTMLButtonElement>("generate").disabled = opened === undefined;
  choice.disabled = opened === undefined;
  element("opened").textContent =
    opened === undefined
      ? "Load a model first."
      : `${shortName(opened.location)} is open: ${opened.layers} layers, ${opened.weights}, ${opened.backend}`;
  element("generate").title = opened === undefined ? "Load a model first" : "";
  const own = opened?.ownSparsity;
  choice.replaceChildren(
    ...(own === undefined ? [] : [new Option(`${percent(own)} (rarefy.json)`, "own", true, true)]),
    ...sparsities.map((s) => new Option(percent(s), String(s), false, own === undefined && s === 0.5)),
  );
}

// --- dense against sparse --------------------------------------------------------------------------------------------

async function compare(): Promise<void> {
  const number = (id: string) => element<HTMLInputElement>(id).valueAsNumber;
  const choice = element<HTMLSelectElement>("sparsity");
  const request: CompareRequest = {
    prompt: element<HTMLTextAreaElement>("prompt").value,
    maxTokens: number("max-tokens"),
    temperature: number("temperature"),
    sparsity: (choice.value === "own" ? "own" : Number(choice.value)) as CompareRequest["sparsity"],
  };
  for (const side of sides) clear(side, request.prompt);
  element("sparse-title").textContent = `Sparse, ${choice.selectedOptions[0].text}`;
  element("stop").hidden = false;
  element("generate").hidden = true;
  const results = await task((onEvent, signal) =>
    worker.call("compare", request, {
      signal,
      onEvent(event) {
        onEvent(event);
        if (event.type === "picture") map.show(event);
        if (event.type === "token") showToken(event);
      },
    }),
  );
  element("stop").hidden = true;
  element("generate").hidden = false;
  if (results === undefined) return;
  for (const side of sides) showBytes(side, results[side]);
  element("verdict").textContent = verdict(results.dense, results.sparse);
}

const text = (className: string, textContent: string) =>
  Object.assign(document.createElement("span"), { className, textContent });

function clear(side: Side, prompt: string): void {
  element(`${side}-text`).replaceChildren(text("prompt", prompt));
  element(`${side}-speed`).textContent = "–";
  element(`${side}-bytes`).textContent = "\u00a0";
  element("verdict").textContent = "";
}

function showToken({ side, id, text: written, tokensPerSecond }: GeneratedToken): void {
  element("task").hidden = true;
  const piece = text("", written);
  piece.dataset.id = String(id);
  element(`${side}-text`).append(piece);
  element(`${side}-speed`).textContent = tokensPerSecond?.toPrecision(3) ?? "–";
}

function showBytes(side: Side, { bytesPerToken, skipped }: Generated): void {
  if (bytesPerToken === undefined) return;
  const share = percent(bytesPerToken / opened!.bytesPerToken);
  element(`${side}-bytes`).textContent =
    `${megabytes(bytesPerToken)} of weights per token (${share}), ${percent(skipped)} of inputs skipped`;
}

function verdict(dense: Generated, sparse: Generated): string {
  if (!dense.tokensPerSecond || !sparse.tokensPerSecond || !dense.bytesPerToken || !sparse.bytesPerToken) return "";
  const speed = sparse.tokensPerSecond / dense.tokensPerSecond;
  const same = dense.tokenIds.findIndex((id, i) => id !== sparse.tokenIds[i]);
  const words =
    speed > 1.05
      ? `at ${speed.toFixed(2)} × the speed of dense`
      : speed < 0.95
        ? "slower than dense"
        : "as fast as dense";
  return [
    `Sparse decoding ran ${words} and read ${percent(sparse.bytesPerToken / dense.bytesPerToken)} of its weights; ` +
      `${same < 0 ? "the texts are the same" : `the texts part at token ${same + 1}: from there on each follows its own words`}.`,
    ...(speed > 1.05 || dense.bytesPerToken > cacheBytes
      ? []
      : [
          `A model of ${megabytes(dense.bytesPerToken)} fits the processor's cache, where bytes that are not read save no time; ` +
            "models of a few hundred MB gain.",
        ]),
  ].join(" ");
}

/** Below this a processor may hold all weights in its cache. */
const cacheBytes = 100e6;

// --- wiring ----------------------------------------------------------------------------------------------------------

element("fetch-form").addEventListener("submit", (event) => {
  event.preventDefault();
  void store({ url: modelUrl(element<HTMLInputElement>("url").value.trim()) });
});

/** A URL as it is, or that of a model of the Hub; the page that the Hub shows of a file stands for the file. */
function modelUrl(given: string): string {
  const shown = /^(https:\/\/huggingface\.co\/[^/]+\/[^/]+)\/blob\/(.+)$/.exec(given);
  if (shown !== null) return `${shown[1]}/resolve/${shown[2]}`;
  const hub = /^(?:https:\/\/huggingface\.co\/)?([\w-][\w.-]*\/[\w.-]+)$/.exec(given);
  return hub === null ? new URL(given, document.baseURI).href : `https://huggingface.co/${hub[1]}/resolve/main/`;
}
const light = matchMedia("(prefers-color-scheme: light)");
light.addEventListener("change", () => map.recolour());
element<HTMLInputElement>("folder").addEventListener("change", ({ currentTarget }) => {
  const source = pickedFolder(currentTarget as HTMLInputElement);
  if (source !== undefined) void store(source);
});
element<HTMLInputElement>("file").addEventListener("change", ({ currentTarget }) => {
  const source = pickedFile(currentTarget as HTMLInputElement);
  if (source !== undefined) void store(source);
});
const drop = element("drop");
drop.addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", async (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  const source = await task(() => droppedFolder(event.dataTransfer!));
  if (source !== undefined) await store(source);
});
for (const id of ["device", "weights"]) {
  element(id).addEventListener("change", () => opened && void open(opened.location));
}
element("generate-form").addEventListener("submit", (event) => {
  event.preventDefault();
  void compare();
});
for (const id of ["stop", "cancel"]) element(id).addEventListener("click", cancelTask);

await task(async () => {
  showMachine(await worker.call("machine", undefined));
  await showStored();
});
