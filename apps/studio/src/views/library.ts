import type { StoredModel } from "rarefy/io";
import type { DeviceId } from "rarefy/kernels";
import type { WeightFormatId } from "rarefy/pack";
import type { ModelSource, OpenedModel, OpenRequest } from "../protocol.js";
import { shortName } from "../shortName.js";
import { models } from "../workers.js";
import { droppedFolder, pickedFile, pickedFolder } from "./folder.js";
import { button, element, made, megabytes, percent } from "./page.js";
import { Task } from "./task.js";

/** What the rest of the page does with the models of the list. */
export interface LibraryListeners {
  /** The models that are whole, after every change. */
  onModels(complete: readonly string[]): void;
  onOpened(model: OpenedModel): Promise<void>;
  onClosed(location: string): void;
  /** Everything that is open is to be opened anew, on another device or in another format. */
  onMachine(): void;
  onReport(location: string): void;
  onExport(location: string): void;
}

/** Models of this browser: loading, opening, removing. */
export class Library {
  readonly #task = new Task(element("model"), element("model-task"));
  /** Models that are open. */
  #open: readonly OpenedModel[] = [];

  constructor(readonly listeners: LibraryListeners) {
    element("fetch-form").addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#store({ url: modelUrl(element<HTMLInputElement>("url").value.trim()) });
    });
    for (const [id, picked] of [
      ["folder", pickedFolder],
      ["file", pickedFile],
    ] as const) {
      element<HTMLInputElement>(id).addEventListener("change", ({ currentTarget }) => {
        const source = picked(currentTarget as HTMLInputElement);
        if (source !== undefined) void this.#store(source);
      });
    }
    this.#wireDrop(element("drop"));
    for (const id of ["device", "weights"]) element(id).addEventListener("change", () => listeners.onMachine());
  }

  get task(): Task {
    return this.#task;
  }

  /** How a model is opened now. */
  request(location: string): OpenRequest {
    const device = element<HTMLSelectElement>("device").value as DeviceId;
    const weights = (element<HTMLSelectElement>("weights").value || undefined) as WeightFormatId | undefined;
    return { location, device, weights, base: document.baseURI };
  }

  /** Shows what there is. */
  async refresh(): Promise<void> {
    const all = await models.call("list", undefined);
    element("stored-none").hidden = all.length > 0;
    element("stored").replaceChildren(...all.map((model) => this.#row(model)));
    this.listeners.onModels(all.filter(({ complete }) => complete).map(({ location }) => location));
  }

  /** Opens a model to write with. */
  async open(location: string): Promise<void> {
    const opened = await this.#task.run((options) => models.call("open", this.request(location), options));
    if (opened !== undefined) {
      // Chosen from the list, it must be there.
      await this.refresh();
      await this.listeners.onOpened(opened);
    } else if (this.#task.error.textContent !== "") {
      this.#task.error.append(" If its files are damaged, remove it below and load it again.");
      this.listeners.onClosed(location);
    }
  }

  /** Says which models are open. */
  showOpen(opened: readonly OpenedModel[]): void {
    this.#open = opened;
    const words = opened.map(
      ({ location, layers, weights, backend }) =>
        `${shortName(location)} is open: ${layers} layers, ${weights}, ${backend}`,
    );
    element("opened").textContent = words.length === 0 ? "Load a model first." : words.join(". ");
    for (const row of element("stored").children) this.#mark(row as HTMLElement);
  }

  #mark(row: HTMLElement): void {
    row.classList.toggle(
      "current",
      this.#open.some(({ location }) => location === row.dataset.location),
    );
  }

  async #store(source: ModelSource): Promise<void> {
    // Without this the browser may drop what is stored when it runs short of room.
    await navigator.storage.persist?.();
    const model = await this.#task.run((options) => {
      const stage = `asking ${"url" in source ? source.url : source.folder}`;
      options.onEvent({ type: "progress", stage, done: 0, unit: "bytes", elapsedMs: 0 });
      return models.call("store", source, options);
    });
    await this.refresh();
    if (model !== undefined) await this.open(model.location);
  }

  async #remove(location: string): Promise<void> {
    await this.#task.run(() => models.call("remove", location));
    this.listeners.onClosed(location);
    await this.refresh();
  }

  /**
   * Removes what an ended worker has left of a model, as soon as the browser has closed its files. A download that was paused knows
   * its size, and stays.
   */
  async clearAway(location: string): Promise<void> {
    const isLeft = async () =>
      (await models.call("list", undefined)).some(
        (model) => model.location === location && !model.complete && model.byteLength === 0,
      );
    for (let tries = 0; tries < 20 && (await isLeft()); tries++) {
      const removed = await models.call("remove", location).then(
        () => true,
        () => false,
      );
      if (!removed) await new Promise((resolve) => setTimeout(resolve, 250));
    }
    await this.refresh();
  }

  #row({ location, complete, byteLength, storedBytes }: StoredModel): HTMLLIElement {
    const { onReport, onExport } = this.listeners;
    const name = shortName(location);
    const state = complete
      ? megabytes(byteLength)
      : byteLength > 0
        ? `${percent(storedBytes / byteLength)} of ${megabytes(byteLength)}`
        : "not finished";
    const action = (text: string, act: () => unknown) => button(text, act, { ariaLabel: `${text} ${name}` });
    const row = made(
      "li",
      {},
      made("span", { textContent: name, title: location }),
      made("small", { textContent: state }),
      made(
        "div",
        { className: "actions" },
        ...(complete ? [action("Open", () => this.open(location))] : []),
        ...(!complete && URL.canParse(location) ? [action("Resume", () => this.#store({ url: location }))] : []),
        ...(complete ? [action("Report", () => onReport(location)), action("Export", () => onExport(location))] : []),
        action("Remove", () => confirm(`Remove ${name} from this browser?`) && this.#remove(location)),
      ),
    );
    row.dataset.location = location;
    this.#mark(row);
    return row;
  }

  #wireDrop(drop: HTMLElement): void {
    drop.addEventListener("dragover", (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
    drop.addEventListener("dragleave", () => drop.classList.remove("over"));
    drop.addEventListener("drop", async (event) => {
      event.preventDefault();
      drop.classList.remove("over");
      const source = await this.#task.run(() => droppedFolder(event.dataTransfer!));
      if (source !== undefined) await this.#store(source);
    });
  }
}

/** A URL as it is, or that of a model of the Hub; the page that the Hub shows of a file stands for the file. */
function modelUrl(given: string): string {
  const shown = /^(https:\/\/huggingface\.co\/[^/]+\/[^/]+)\/blob\/(.+)$/.exec(given);
  if (shown !== null) return `${shown[1]}/resolve/${shown[2]}`;
  const hub = /^(?:https:\/\/huggingface\.co\/)?([\w-][\w.-]*\/[\w.-]+)$/.exec(given);
  return hub === null ? new URL(given, document.baseURI).href : `https://huggingface.co/${hub[1]}/resolve/main/`;
}
