import type { ResultRow } from "rarefy/eval";
import type { DeviceId } from "rarefy/kernels";
import type { Compressed, CompressRequest, TextSource } from "../protocol.js";
import { shortName } from "../shortName.js";
import { inWorkshop } from "../workers.js";
import { type Choices, exampleRecipe, methods, patterns, takesShare } from "./methods.js";
import { button, element, made, megabytes, percent, scrolling } from "./page.js";
import { Task } from "./task.js";

/** What the rest of the page does with a result. */
export interface CompressListeners {
  /** The store has another model. */
  onMade(location: string): Promise<void>;
  /** Nothing came of it; a worker that had to be ended may have left something. */
  onFailed(location: string): Promise<void>;
  onCompare(source: string, result: string): void;
  onReport(location: string): void;
  onExport(location: string): void;
}

const field = (id: string) => element<HTMLInputElement & HTMLSelectElement>(id);

/** Texts of the page's own. */
const bundled = { calibration: "text/calib.txt", evaluation: "text/books-eval.txt" } as const;
type TextField = keyof typeof bundled;

/** Prunes, quantises and calibrates models of the store, in a worker of its own. */
export class Compress {
  readonly #task = new Task(element("compress"), element("compress-task"));
  /** Whether the name of the result is the one that the form proposed. */
  #named = true;

  constructor(readonly listeners: CompressListeners) {
    field("method").replaceChildren(...Object.entries(methods).map(([id, { title }]) => new Option(title, id)));
    field("pattern").replaceChildren(...Object.entries(patterns).map(([id, title]) => new Option(title, id)));
    field("recipe").value = exampleRecipe;
    for (const id of Object.keys(bundled) as TextField[]) this.#wireText(id);
    for (const id of ["compress-model", "method", "pattern", "share", "bits"])
      element(id).addEventListener("input", () => this.#changed());
    field("result-name").addEventListener("input", () => {
      this.#named = field("result-name").value === "";
    });
    element("compress-form").addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#start();
    });
    this.#changed();
  }

  /** The models to choose from. */
  offer(locations: readonly string[]): void {
    const chosen = field("compress-model").value;
    const options = locations.map((at) => new Option(shortName(at), at, false, at === chosen));
    field("compress-model").replaceChildren(...options);
    this.#changed();
  }

  /** Chooses a model. */
  choose(location: string): void {
    field("compress-model").value = location;
    this.#changed();
  }

  #wireText(id: TextField): void {
    const select = field(id);
    const file = field(`${id}-file`);
    select.replaceChildren(new Option("comes with the studio (books)", "bundled"), new Option("none", "none"));
    file.addEventListener("change", () => {
      const [chosen] = Array.from(file.files ?? []);
      select.querySelector("[value=file]")?.remove();
      if (chosen !== undefined) select.append(new Option(chosen.name, "file", false, true));
      this.#changed();
    });
    select.addEventListener("change", () => this.#changed());
  }

  #changed(): void {
    const method = methods[field("method").value];
    const choices = this.#choices();
    for (const name of ["pattern", "share", "bits", "recipe"] as const)
      element(`${name}-row`).hidden =
        !method.fields.includes(name) ||
        (name === "share" && method.fields.includes("pattern") && !takesShare(choices.pattern));
    // A number that nobody sees must not hold the form up.
    field("share").disabled = element("share-row").hidden === true;
    element("method-note").textContent = method.note;
    const textless = method.withoutText === undefined && field("calibration").value === "none";
    field("calibration").setCustomValidity(textless ? "This method looks at a text; choose one" : "");
    const location = field("compress-model").value;
    field("start").disabled = location === "" || this.#task.running;
    if (this.#named && location !== "")
      field("result-name").value = `${shortName(location)}-${method.suffix(choices)}`.slice(0, 120);
  }

  #choices(): Choices {
    return {
      pattern: field("pattern").value,
      share: field("share").valueAsNumber || 50,
      bits: Number(field("bits").value),
      recipe: field("recipe").value,
    };
  }

  #text(id: TextField): TextSource | undefined {
    const { value } = field(id);
    if (value === "none") return undefined;
    if (value === "file") return { file: field(`${id}-file`).files![0] };
    return { url: new URL(bundled[id], document.baseURI).href };
  }

  async #start(): Promise<void> {
    const text = this.#text("evaluation");
    const request: CompressRequest = {
      location: field("compress-model").value,
      name: field("result-name").value.trim(),
      work: methods[field("method").value].work(this.#choices()),
      calibration: this.#text("calibration"),
      window: field("window").valueAsNumber,
      windows: field("calibration-windows").valueAsNumber,
      ...(text && { evaluation: { text, windows: field("evaluation-windows").valueAsNumber } }),
      device: field("device").value as DeviceId,
    };
    field("start").disabled = true;
    const compressed = await this.#task.run((options) => {
      options.onEvent({ type: "progress", stage: "begin", done: 0, unit: "bytes", elapsedMs: 0 });
      return inWorkshop("compress", request, options);
    });
    if (compressed === undefined) await this.listeners.onFailed(request.name);
    field("start").disabled = false;
    if (compressed === undefined) return;
    this.#named = true;
    await this.listeners.onMade(compressed.location);
    this.#showResult(request, compressed);
  }

  #showResult({ location: source }: CompressRequest, { location, before, after }: Compressed): void {
    const { onCompare, onReport, onExport } = this.listeners;
    element("result").replaceChildren(
      made("h3", { textContent: `${location} is stored` }),
      rowsTable(before === undefined ? [after] : [before, after]),
      made(
        "div",
        { className: "row" },
        button("Compare in the chat", () => onCompare(source, location)),
        button("Show the report", () => onReport(location)),
        button("Export", () => onExport(location), { ariaLabel: `Export ${location}` }),
      ),
    );
  }
}

const columns: readonly [string, (row: ResultRow, source: ResultRow) => string][] = [
  ["model", ({ model }) => model],
  ["perplexity", ({ perplexity }) => perplexity?.toFixed(4) ?? ""],
  [
    "change",
    (row, source) =>
      row === source || !row.perplexity || !source.perplexity
        ? ""
        : `${(100 * (row.perplexity / source.perplexity - 1)).toFixed(1)} %`,
  ],
  ["same first choice", ({ top1Agreement }) => (top1Agreement === undefined ? "" : percent(top1Agreement))],
  ["zero inputs", ({ activationSparsity }) => (activationSparsity > 0 ? percent(activationSparsity) : "")],
  ["numbers stored", ({ densityStored }) => (densityStored === undefined ? "" : percent(densityStored))],
  ["weights", ({ bytesOnDisk }) => (bytesOnDisk === undefined ? "" : megabytes(bytesOnDisk))],
];

/** What was measured, without the columns that no row has. */
function rowsTable(rows: readonly ResultRow[]): HTMLElement {
  const used = columns.filter(([, cell]) => rows.some((row) => cell(row, rows[0]) !== ""));
  const table = made("table", { className: "figures" });
  table
    .createTHead()
    .insertRow()
    .append(...used.map(([title]) => made("th", { scope: "col", textContent: title })));
  const body = table.createTBody();
  for (const row of rows)
    body.insertRow().append(...used.map(([, cell]) => made("td", { textContent: cell(row, rows[0]) })));
  return scrolling(made("div", {}, table), "What was measured");
}
