/** How a kernel uses one storage buffer: `type` is the WGSL element type of its array. */
export interface BufferSlot {
  readonly type: "f32" | "u32" | "vec4<f32>" | "vec4<u32>" | "atomic<u32>";
  readonly access: "read" | "read_write";
}

/**
 * One WGSL compute kernel. Its source is `code`, in which `p` holds the parameters, every buffer goes by its name in
 * `buffers`, and the entry point is `main`.
 */
export interface Kernel<P extends string = string, B extends string = string> {
  /** Unique; variants (a weight format, a head size) carry their constants in it. */
  readonly name: string;
  /** WGSL extensions, which the device must have. */
  readonly enable?: readonly string[];
  /** WGSL diagnostics that are switched off. */
  readonly unchecked?: readonly string[];
  /** Scalars of `p`, in this order. */
  readonly params: Readonly<Record<P, "u32" | "f32">>;
  /** Number of `vec4<u32>` in `p.table`; default 0. */
  readonly tableLength?: number;
  readonly buffers: Readonly<Record<B, BufferSlot>>;
  readonly code: string;
}

/** A TypeScript-side check that parameters and buffers of a dispatch match the kernel's declaration. */
export function kernel<P extends string, B extends string>(k: Kernel<P, B>): Kernel<P, B> {
  return k;
}

/** A buffer that a kernel only reads; elements are f32 by default. */
export const read = (type: BufferSlot["type"] = "f32"): BufferSlot => ({ type, access: "read" });
/** A buffer that a kernel reads and writes; elements are f32 by default. */
export const readWrite = (type: BufferSlot["type"] = "f32"): BufferSlot => ({ type, access: "read_write" });

/** Every parameter block is this long, so that all kernels share one layout for it. */
export const paramBytes = 256;

/**
 * The complete WGSL of a kernel. Slots that are bound to the same buffer must be one variable, or WebGPU rejects the
 * dispatch as aliased: `sharedWith[i]` is the first slot with the buffer of slot i, whose name replaces the others.
 */
export function wgsl(k: Kernel, sharedWith: readonly number[]): string {
  const slots = Object.entries(k.buffers);
  const params = Object.entries(k.params).map(([name, type]) => `  ${name}: ${type},`);
  if (k.tableLength !== undefined) params.push(`  @align(16) table: array<vec4<u32>, ${k.tableLength}>,`);
  const declarations: string[] = [];
  let code = k.code;
  for (const [i, [name, { type }]] of slots.entries()) {
    if (sharedWith[i] !== i) {
      code = code.replace(new RegExp(`\\b${name}\\b`, "g"), slots[sharedWith[i]][0]);
    } else {
      const access = sharedAccess(slots, sharedWith, i);
      declarations.push(
        `@group(0) @binding(${declarations.length + 1}) var<storage, ${access}> ${name}: array<${type}>;`,
      );
    }
  }
  return [
    ...(k.enable ?? []).map((extension) => `enable ${extension};`),
    ...(k.unchecked ?? []).map((diagnostic) => `diagnostic(off, ${diagnostic});`),
    "struct Params {",
    ...params,
    "}",
    "@group(0) @binding(0) var<uniform> p: Params;",
    ...declarations,
    code,
  ].join("\n");
}

/** Access of the variable that slot `first` and all that share its buffer become. */
export function sharedAccess(
  slots: readonly (readonly [string, BufferSlot])[],
  sharedWith: readonly number[],
  first: number,
): BufferSlot["access"] {
  const writes = slots.some(([, slot], i) => sharedWith[i] === first && slot.access === "read_write");
  return writes ? "read_write" : "read";
}
