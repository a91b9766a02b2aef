import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const docs = (...names) => names.map((name) => `docs/${name}.md`);

/** Where each kind of reader begins. */
export const readers = [
  { text: "I write an application", page: "docs/for-applications.md" },
  { text: "I write a web page", page: "docs/for-pages.md" },
  { text: "I do research", page: "docs/for-research.md" },
  { text: "I run servers", page: "docs/for-operators.md" },
];

/** The pages in the order of the sidebar and of llms.txt, by what they are about. */
export const groups = [
  { text: "Begin", pages: docs("getting-started", "features", "cli", "programs", "studio", "limits") },
  { text: "Who you are", pages: readers.map(({ page }) => page) },
  { text: "Leave inputs and layers out", pages: docs("activations", "depth", "experts", "offload") },
  { text: "Attention, caches, drafts", pages: docs("attention", "cache", "speculation", "edge-cloud") },
  { text: "Smaller weights", pages: docs("compress", "pruning", "quantisation", "factors") },
  { text: "Train", pages: docs("training", "adapters", "distillation", "experiments") },
  {
    text: "Measure",
    pages: [
      ...docs("speed", "real-models", "evaluation"),
      "bench/README.md",
      "bench/real/README.md",
      "bench/webgpu/README.md",
    ],
  },
  { text: "Run and serve", pages: docs("browser", "native", "server", "beyond-one-machine") },
  { text: "Files", pages: docs("formats", "outputs") },
  {
    text: "Build on it",
    pages: [
      ...docs("path", "add-an-architecture", "add-a-weight-format", "add-a-backend"),
      "CONTRIBUTING.md",
      "CHANGELOG.md",
    ],
  },
];

/** @throws for a page in docs/ that no group has */
export function checkGrouped(root) {
  const grouped = new Set(groups.flatMap(({ pages }) => pages));
  const left = readdirSync(join(root, "docs")).filter((name) => name.endsWith(".md") && !grouped.has(`docs/${name}`));
  if (left.length > 0) throw new Error(`site/.vitepress/pages.mjs lacks ${left.join(", ")}`);
}

/** A page's first heading and the first sentence of its first paragraph, without markup. */
export function summary(root, page) {
  const source = readFileSync(join(root, page), "utf8");
  const title = /^# +(.+)$/m.exec(source)?.[1];
  if (title === undefined) throw new Error(`${page} has no heading`);
  const prose = source.replace(/^```.*?^```/gms, "").split(/\n\s*\n/);
  const paragraph = prose.find((block) => /^[\p{L}*`[]/u.test(block.trim()) && !/^[-*] /.test(block.trim())) ?? "";
  const plain = paragraph
    .replace(/\[([^\]]*)\]\([^)]*\)/g, "$1")
    .replace(/\*\*|`/g, "")
    .replace(/\s+/g, " ")
    .trim();
  return { title, sentence: /^.*?[.:](?= |$)/.exec(plain)?.[0].replace(/:$/, ".") ?? plain };
}
