import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { groups, summary } from "./pages.mjs";

/**
 * Writes what programs read: llms.txt, every page of the site with its heading and its first sentence; the pages as Markdown
 * where it points to; and llms-full.txt, all of them one after the other.
 */
export function writeLlms({ root, outDir, base }) {
  const { description } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  const head = `# rarefy\n\n> ${description}\n`;
  const index = groups.map(({ text, pages }) => {
    const lines = pages.map((page) => {
      const { title, sentence } = summary(root, page);
      return `- [${title}](${base}${page})${sentence && `: ${sentence}`}`;
    });
    return `## ${text}\n\n${lines.join("\n")}\n`;
  });
  writeFileSync(join(outDir, "llms.txt"), [head, ...index].join("\n"));
  const pages = groups.flatMap((group) => group.pages);
  const full = pages.map((page) => `<!-- ${page} -->\n\n${readFileSync(join(root, page), "utf8")}`);
  writeFileSync(join(outDir, "llms-full.txt"), [head, ...full].join("\n"));
  for (const page of pages) cpSync(join(root, page), join(outDir, page));
}
