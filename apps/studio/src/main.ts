import { Chat } from "./views/chat.js";
import { Compress } from "./views/compress.js";
import { Export } from "./views/export.js";
import { Inspect } from "./views/inspect.js";
import { Library } from "./views/library.js";
import { showMachine } from "./views/machine.js";
import { element } from "./views/page.js";
import { Report } from "./views/report.js";
import { selectTab, wireTabs } from "./views/tabs.js";
import { models } from "./workers.js";

// The views, and what one does for another.

const toTab = (id: string) => selectTab(element(`tab-${id}`));
const showReport = (location: string) => {
  toTab("report");
  void report.show(location);
};

const exporter = new Export();
const report = new Report();
const inspect = new Inspect();
const chat = new Chat(
  (location) => library.request(location),
  (variants, opened) => {
    inspect.offer(variants);
    library.showOpen(opened);
  },
);
const compress = new Compress({
  onMade: () => library.refresh(),
  onFailed: (location) => library.clearAway(location),
  onCompare(source, result) {
    toTab("chat");
    void chat.compare([
      { location: source, skipping: "dense" },
      { location: result, skipping: "own" },
    ]);
  },
  onReport: showReport,
  onExport: (location) => exporter.open(location),
});
const library = new Library({
  onModels(complete) {
    for (const view of [chat, compress, report]) view.offer(complete);
  },
  async onOpened(opened) {
    compress.choose(opened.location);
    await chat.begin(opened);
  },
  onClosed: (location) => void chat.drop(location),
  onMachine: () => void chat.reopen(),
  onReport: showReport,
  onExport: (location) => exporter.open(location),
});

wireTabs(element("tabs"));
matchMedia("(prefers-color-scheme: light)").addEventListener("change", () => chat.recolour());

await library.task.run(async () => {
  showMachine(await models.call("machine", undefined));
  await library.refresh();
});
// What an earlier visit exported.
await models.call("removeSaved", undefined).catch(() => {});
