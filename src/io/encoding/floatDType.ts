import { bf16FromF32, f16FromF32, f32FromBf16, f32FromF16 } from "../../tensor/index.js";

/** Types whose plain values a tensor of weights may be stored as. */
export type FloatDType = "F32" | "BF16" | "F16";

/** What each type keeps of an f32 value. */
export const rounded: Readonly<Record<FloatDType, (value: number) => number>> = {
  F32: (value) => value,
  BF16: (value) => f32FromBf16(bf16FromF32(value)),
  F16: (value) => f32FromF16(f16FromF32(value)),
};

/** The smallest type that holds all values. */
export const smallestExact = (values: Float32Array): FloatDType =>
  (["BF16", "F16"] as const).find((dtype) => values.every((value) => rounded[dtype](value) === value)) ?? "F32";
