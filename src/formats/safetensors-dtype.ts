// Element types of the safetensors format, their sizes, and the ones that longwave holds in memory.
import { type DType, isFloat } from "../tensor/dtype.ts";

/** Bits of one element. The list is that of safetensors 0.6; the sub-byte types are packed. */
export const bitsPerSafetensorsElement = {
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  BOOL: 8,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
} as const;

export type SafetensorsDType = keyof typeof bitsPerSafetensorsElement;

export const isSafetensorsDType = (name: string): name is SafetensorsDType => Object.hasOwn(bitsPerSafetensorsElement, name);

const inFile: Record<DType, SafetensorsDType> = {
  f32: "F32",
  f64: "F64",
  i32: "I32",
  i64: "I64",
  i8: "I8",
  u8: "U8",
  bool: "BOOL",
  f16: "F16",
  bf16: "BF16",
};

/** The format's name of an element type. */
export const toSafetensorsDType = (dtype: DType): SafetensorsDType => inFile[dtype];

/** The element type in memory that holds the same bits, or undefined where there is none (U16, F8 …). */
export function fromSafetensorsDType(dtype: SafetensorsDType): DType | undefined {
  return (Object.keys(inFile) as DType[]).find((name) => inFile[name] === dtype);
}

const wider: Partial<Record<SafetensorsDType, DType>> = {
  F8_E4M3: "f32",
  F8_E5M2: "f32",
  F8_E8M0: "f32",
  I16: "i32",
  U16: "i32",
  U32: "i64",
  U64: "i64",
};

/** The element type that a tensor is read as: floats as f32, integers in the next type that holds them; undefined for packed and complex ones. */
export function readableDType(dtype: SafetensorsDType): DType | undefined {
  const same = fromSafetensorsDType(dtype);
  return same === undefined ? wider[dtype] : isFloat(same) ? "f32" : same;
}
