import type { ExportRequest } from "../protocol.js";
import { shortName } from "../shortName.js";
import { savingMs } from "../worker/exportFolder.js";
import { inWorkshop, models } from "../workers.js";
import { element, save } from "./page.js";
import { Task } from "./task.js";

const field = (id: string) => element<HTMLInputElement & HTMLSelectElement>(id);

/** Where browsers let a page write into a folder of the user's. */
type PickingWindow = typeof globalThis & {
  showDirectoryPicker?: (options: { mode: "readwrite" }) => Promise<FileSystemDirectoryHandle>;
};
const picking = globalThis as PickingWindow;

/** What a model may leave as; undefined for a folder that is still to be chosen. */
const forms: Readonly<Record<string, { title: string; form: ExportRequest["form"] | undefined }>> = {
  zip: { title: "archive (.zip)", form: { zip: true } },
  ...(picking.showDirectoryPicker && { folder: { title: "into a folder …", form: undefined } }),
  f16: { title: "GGUF, f16", form: { gguf: "f16" } },
  bf16: { title: "GGUF, bf16", form: { gguf: "bf16" } },
  f32: { title: "GGUF, f32", form: { gguf: "f32" } },
  q8_0: { title: "GGUF, 8 bits (q8_0)", form: { gguf: "q8_0" } },
  q4_0: { title: "GGUF, 4 bits (q4_0)", form: { gguf: "q4_0" } },
};

/** Takes a model out of the store: a dialog. */
export class Export {
  readonly #dialog = element<HTMLDialogElement>("export");
  readonly #task = new Task(this.#dialog, element("export-task"));
  #location = "";

  constructor() {
    field("export-form-of").replaceChildren(...Object.entries(forms).map(([id, { title }]) => new Option(title, id)));
    element("export-form").addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#start();
    });
    element("export-close").addEventListener("click", () => this.#dialog.close());
    this.#dialog.addEventListener("close", () => this.#task.cancel());
  }

  open(location: string): void {
    this.#location = location;
    element("export-title").textContent = `Export ${shortName(location)}`;
    field("export-name").value = shortName(location).replace(/[^\w.-]+/g, "-");
    this.#dialog.showModal();
  }

  async #start(): Promise<void> {
    const [location, name] = [
      this.#location,
      field("export-name")
        .value.trim()
        .replace(/[/\\:]/g, "-"),
    ];
    const done = await this.#task.run(async (options) => {
      const form = forms[field("export-form-of").value].form ?? (await chosenFolder(name));
      if (form === undefined) return false;
      const file = await inWorkshop("export", { location, name, form }, options);
      if (file !== undefined) {
        save(file, file.name);
        // It takes room of the models until then.
        setTimeout(() => void models.call("removeSaved", undefined).catch(() => {}), savingMs(file.size) + 1000);
      }
      return true;
    });
    if (done) this.#dialog.close();
  }
}

/** A folder of the model's name within the one that is chosen; undefined where none was. */
async function chosenFolder(name: string): Promise<ExportRequest["form"] | undefined> {
  try {
    const parent = await picking.showDirectoryPicker!({ mode: "readwrite" });
    return { folder: await parent.getDirectoryHandle(name, { create: true }) };
  } catch (error) {
    if ((error as Error).name === "AbortError") return undefined;
    throw error;
  }
}
