// Writes api/*.md from the sources: a page for each path that package.json exports, under the name that it is imported by.
import { readFileSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Application } from "typedoc";

const path = (relative) => fileURLToPath(new URL(relative, import.meta.url));
const { exports } = JSON.parse(readFileSync(path("../package.json"), "utf8"));

/** Source file → the name of its module. */
const modules = new Map(
  Object.entries(exports)
    .filter(([, target]) => target.types !== undefined)
    .map(([name, { types }]) => [
      path(types.replace("./dist/", "../src/").replace(/\.d\.ts$/, ".ts")),
      name.replace(/^\./, "rarefy"),
    ]),
);

const app = await Application.bootstrapWithPlugins({
  plugin: ["typedoc-plugin-markdown"],
  entryPoints: [...modules.keys()],
  tsconfig: path("../tsconfig.build.json"),
  // `npm run typecheck` reports them.
  skipErrorChecking: true,
  out: path("api"),
  readme: "none",
  name: "API",
  router: "module",
  entryFileName: "index",
  hideBreadcrumbs: true,
  // Its anchors tell overloads and members of one name apart as its links do; those that Markdown gives to headings would not.
  useHTMLAnchors: true,
  disableSources: true,
  excludeInternal: true,
  excludePrivate: true,
  // Vue takes what looks like a tag or an interpolation in Markdown for its own.
  useHTMLEncodedBrackets: true,
  sanitizeComments: true,
  validation: false,
  logLevel: "Error",
});
const entryPoints = app.getEntryPoints() ?? [];
for (const point of entryPoints) point.displayName = modules.get(point.sourceFile.fileName) ?? point.displayName;
rmSync(path("api"), { recursive: true, force: true });
await app.generateOutputs(app.converter.convert(entryPoints));
if (app.logger.hasErrors()) process.exitCode = 1;
