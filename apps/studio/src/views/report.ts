import { shortName } from "../shortName.js";
import { inWorkshop } from "../workers.js";
import { element, save } from "./page.js";
import { Task } from "./task.js";

const field = (id: string) => element<HTMLInputElement & HTMLSelectElement>(id);

/** The library's report of a model of the store. */
export class Report {
  readonly #task = new Task(element("report"), element("report-task"));
  #shown: { location: string; page: string } | undefined;

  constructor() {
    element("show-report").addEventListener("click", () => void this.show(field("report-model").value));
    element("save-report").addEventListener("click", () => {
      const { page, location } = this.#shown!;
      save(new Blob([page], { type: "text/html" }), `${shortName(location)}.html`);
    });
  }

  /** The models to choose from. */
  offer(locations: readonly string[]): void {
    const chosen = field("report-model").value;
    const options = locations.map((at) => new Option(shortName(at), at, false, at === chosen));
    field("report-model").replaceChildren(...options);
    field("show-report").disabled = locations.length === 0;
    if (this.#shown !== undefined && !locations.includes(this.#shown.location)) this.#clear();
  }

  async show(location: string): Promise<void> {
    field("report-model").value = location;
    this.#clear();
    const page = await this.#task.run((options) => inWorkshop("report", location, options));
    if (page === undefined) return;
    this.#shown = { location, page };
    const frame = element<HTMLIFrameElement>("report-page");
    frame.srcdoc = page;
    frame.title = `Report on ${shortName(location)}`;
    frame.hidden = false;
    field("save-report").disabled = false;
  }

  #clear(): void {
    this.#shown = undefined;
    element("report-page").hidden = true;
    field("save-report").disabled = true;
  }
}
