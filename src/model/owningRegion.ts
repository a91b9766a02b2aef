import type { Region } from "../kernels/index.js";

/** A region that takes what lies beside it with it. */
export interface OwningRegion extends Region {
  own(other: Disposable): void;
}

/** @param region whose handles the new one gives out */
export function owningRegion(region: Region): OwningRegion {
  const owned: Disposable[] = [];
  return {
    loadMatrix: (...of) => region.loadMatrix(...of),
    loadExperts: (...of) => region.loadExperts(...of),
    loadVector: (values) => region.loadVector(values),
    loadRope: (...of) => region.loadRope(...of),
    own: (other) => void owned.push(other),
    [Symbol.dispose]() {
      region[Symbol.dispose]();
      for (const one of owned.splice(0)) one[Symbol.dispose]();
    },
  };
}
