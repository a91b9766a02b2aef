import { DeviceError } from "../../core/index.js";
import { isNode } from "./host.js";
import type { KernelBuild } from "./kernels.js";
import type { NativeKernels, NativeSet } from "./native.js";

/**
 * The kernels that are wanted and can be had here, or why there are none; undefined in a browser, which never has any.
 * @throws DeviceError when a set is asked for by name and cannot be had
 */
export async function findNative(
  wanted: boolean | NativeSet | undefined,
  build: KernelBuild,
): Promise<NativeKernels | { none: string } | undefined> {
  if (wanted === false || (!isNode() && typeof wanted !== "string")) return undefined;
  const found = isNode()
    ? (await import("./native.node.js")).openNative(wanted, build === "baseline")
    : { none: "this is not Node.js" };
  if (typeof wanted === "string" && "none" in found) {
    throw new DeviceError(`the native kernels "${wanted}" cannot be had: ${found.none}`);
  }
  return found;
}
