import { resolve } from "node:path";

export default {
  output: "export",
  // The package's own packages lie in the repository.
  turbopack: { root: resolve(import.meta.dirname, "../../..") },
};
