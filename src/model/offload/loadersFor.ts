import type { ModelSpec } from "../../arch/index.js";
import { UsageError } from "../../core/index.js";
import type { Backend, Region } from "../../kernels/index.js";
import type { LoadModelOptions } from "../loadOptions.js";
import type { TensorSource } from "../tensorRows.js";
import type { ExpertLoader } from "./expertLoader.js";
import type { OffloadLoader } from "./loader.js";

/** What loads the weights that stay in the file: of MLPs, or of experts. */
export interface OffloadLoaders {
  readonly mlps?: OffloadLoader;
  readonly experts?: ExpertLoader;
}

/** Loaded where it is asked for: a page without it does not pay for it. */
export async function offloadLoaders(
  source: TensorSource,
  backend: Backend,
  region: Region,
  { offload, ...options }: LoadModelOptions,
  spec: ModelSpec,
): Promise<OffloadLoaders | undefined> {
  if (offload === undefined) return undefined;
  const { ExpertLoader, OffloadLoader } = await import("./loaders.js");
  if (offload.file.shape.layout === "experts" && options.expertRanks !== undefined)
    throw new UsageError("experts at several ranks are all in memory: take either those or a bound of resident bytes");
  if (offload.file.shape.layout === "experts") return { experts: new ExpertLoader(backend, offload, spec) };
  return { mlps: new OffloadLoader(source, backend, region, { ...options, offload }, spec) };
}
