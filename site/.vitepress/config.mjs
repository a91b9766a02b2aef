import { cpSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitepress";
import { githubSlugs } from "./githubSlugs.mjs";
import { writeLlms } from "./llms.mjs";
import { checkGrouped, groups, readers, summary } from "./pages.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
checkGrouped(root);
const link = (page) => `/${page.replace(/\.md$/, "")}`;

export default defineConfig({
  title: "rarefy",
  description: "Make language models sparse, prove what it costs, run them faster: Node.js and browsers, no Python.",
  lang: "en",
  base: process.env.SITE_BASE ?? "/",
  // The pages are the repository's own Markdown where it lies; what only the site has lies in site/ and is served from the root.
  srcDir: "..",
  outDir: "dist",
  rewrites: { "site/index.md": "index.md", "site/api/:rest*": "api/:rest*" },
  srcExclude: [
    "{src,test,apps,build,examples,prebuilds,scripts,coverage}/**",
    "models/text/**",
    "bench/{.models,bundlers,lighthouse,runtimes,publishing}/**",
  ],
  // Settings of another server, which are no page: they are copied beside the pages.
  ignoreDeadLinks: [/examples\/server\/nginx\.conf$/],
  head: [["link", { rel: "icon", href: icon() }]],
  markdown: {
    anchor: { slugify: githubSlugs },
    theme: { light: "github-light-high-contrast", dark: "github-dark" },
  },
  themeConfig: {
    nav: [
      { text: "Getting started", link: "/docs/getting-started" },
      { text: "For you", items: readers.map(({ text, page }) => ({ text, link: link(page) })) },
      { text: "Command line", link: "/docs/cli" },
      { text: "API", link: "/api/" },
      { text: "Limits", link: "/docs/limits" },
    ],
    sidebar: groups.map(({ text, pages }) => ({
      text,
      items: pages.map((page) => ({ text: summary(root, page).title, link: link(page) })),
    })),
    outline: [2, 3],
    search: {
      provider: "local",
      // The API would be most of the index, and its names are found by their pages.
      options: { _render: (source, env, md) => (env.relativePath.startsWith("api/") ? "" : md.render(source, env)) },
    },
  },
  vite: {
    // The model of the demo, and the text beside it, as the package holds them.
    publicDir: join(root, "models"),
    resolve: {
      alias: [
        { find: /^rarefy$/, replacement: join(root, "dist/index.js") },
        { find: /^rarefy\/io$/, replacement: join(root, "dist/io/index.js") },
      ],
    },
    plugins: [vueOfSite()],
    worker: { format: "es" },
    build: { target: "es2022", chunkSizeWarningLimit: 3000 },
  },
  buildEnd({ outDir, site }) {
    for (const linked of ["examples/server", "docs/images"]) {
      cpSync(join(root, linked), join(outDir, linked), { recursive: true });
    }
    writeLlms({ root, outDir, base: site.base });
  },
});

/**
 * Vite looks for packages from where its pages lie, here the repository, which has no Vue: the server's bundle would take Vue in,
 * as what is not found cannot stay outside, and the pages in the browser would not find it.
 */
function vueOfSite() {
  return {
    name: "vue-of-site",
    enforce: "pre",
    resolveId(id, importer, { ssr }) {
      if (!/^vue(\/|$)/.test(id)) return;
      if (ssr) return { id, external: true };
      if (importer?.endsWith(".md")) return this.resolve(id, join(root, "site/build.mjs"), { skipSelf: true });
    },
  };
}

/** Three of sixteen squares, as the studio has them. */
function icon() {
  const squares =
    "<rect width='4' height='4'/><rect x='12' y='6' width='4' height='4'/><rect x='6' y='12' width='4' height='4'/>";
  const svg = `<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'><g fill='%23e8973a'>${squares}</g></svg>`;
  return `data:image/svg+xml,${svg}`;
}
