import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { expect, test } from "vitest";
import { root } from "./support/rarefy.js";

const pages = [
  ...[
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "bench/README.md",
    "bench/real/README.md",
    "bench/webgpu/README.md",
  ],
  ...readdirSync(join(root, "docs")).flatMap((name) => (name.endsWith(".md") ? [`docs/${name}`] : [])),
];

/** A page without what stands in code, where brackets and parentheses mean something else. */
const prose = (page: string) =>
  readFileSync(join(root, page), "utf8")
    .replace(/^```.*?^```/gms, "")
    .replace(/`[^`\n]*`/g, "code");

/** The anchors that GitHub gives the headings of a page. */
function anchors(page: string): Set<string> {
  const headings = readFileSync(join(root, page), "utf8")
    .replace(/^```.*?^```/gms, "")
    .matchAll(/^#+ +(.+)$/gm);
  const seen = new Map<string, number>();
  return new Set(
    Array.from(headings, ([, heading]) => {
      const slug = heading
        .toLowerCase()
        .replace(/\[([^\]]*)\]\([^)]*\)/g, "$1")
        .replace(/[^\p{L}\p{N}\p{M} _-]/gu, "")
        .trim()
        .replaceAll(" ", "-");
      const count = seen.get(slug) ?? 0;
      seen.set(slug, count + 1);
      return count === 0 ? slug : `${slug}-${count}`;
    }),
  );
}

/** What is wrong with the links of a page to files of the repository and to headings in them. */
function brokenLinks(page: string): string[] {
  const targets = Array.from(prose(page).matchAll(/\]\(([^)\s]+)\)/g), ([, target]) => target);
  return targets.flatMap((target) => {
    if (/^[a-z]+:/.test(target)) return [];
    const [path, anchor] = target.split("#");
    const file = path === "" ? page : relative(root, join(root, dirname(page), path));
    if (file.startsWith("..") || !existsSync(join(root, file))) return [`${page}: ${target} leads nowhere`];
    if (anchor === undefined || !file.endsWith(".md") || anchors(file).has(anchor)) return [];
    return [`${page}: there is no heading for ${target}`];
  });
}

test("links between the pages of the documentation lead somewhere", () => {
  expect(pages.length).toBeGreaterThan(25);
  expect(pages.flatMap(brokenLinks)).toEqual([]);
});

test("every page has its place in the documentation site", async () => {
  const { checkGrouped } = await import(join(root, "site/.vitepress/pages.mjs"));
  expect(() => checkGrouped(root)).not.toThrow();
});
