// Element types of GGUF (ggml's numbering): how many values a block holds and how many bytes it takes.
// Source: the GGUF specification in ggml-org/ggml, docs/gguf.md, and ggml's block structures.

export interface GgufTensorType {
  /** Number in the file. */
  readonly id: number;
  /** Values of a block; 1 for plain types. A row is a whole number of blocks. */
  readonly values: number;
  /** Bytes of a block. */
  readonly bytes: number;
}

const type = (id: number, values: number, bytes: number): GgufTensorType => ({ id, values, bytes });

export const ggufTensorTypes = {
  F32: type(0, 1, 4),
  F16: type(1, 1, 2),
  Q4_0: type(2, 32, 18),
  Q4_1: type(3, 32, 20),
  Q5_0: type(6, 32, 22),
  Q5_1: type(7, 32, 24),
  Q8_0: type(8, 32, 34),
  Q8_1: type(9, 32, 36),
  Q2_K: type(10, 256, 84),
  Q3_K: type(11, 256, 110),
  Q4_K: type(12, 256, 144),
  Q5_K: type(13, 256, 176),
  Q6_K: type(14, 256, 210),
  Q8_K: type(15, 256, 292),
  IQ2_XXS: type(16, 256, 66),
  IQ2_XS: type(17, 256, 74),
  IQ3_XXS: type(18, 256, 98),
  IQ1_S: type(19, 256, 50),
  IQ4_NL: type(20, 32, 18),
  IQ3_S: type(21, 256, 110),
  IQ2_S: type(22, 256, 82),
  IQ4_XS: type(23, 256, 136),
  I8: type(24, 1, 1),
  I16: type(25, 1, 2),
  I32: type(26, 1, 4),
  I64: type(27, 1, 8),
  F64: type(28, 1, 8),
  IQ1_M: type(29, 256, 56),
  BF16: type(30, 1, 2),
  TQ1_0: type(34, 256, 54),
  TQ2_0: type(35, 256, 66),
  MXFP4: type(39, 32, 17),
  NVFP4: type(40, 64, 36),
} as const;

export type GgufTypeName = keyof typeof ggufTensorTypes;

const namesById: ReadonlyMap<number, GgufTypeName> = new Map(
  (Object.keys(ggufTensorTypes) as GgufTypeName[]).map((name) => [ggufTensorTypes[name].id, name]),
);

/** The name of a type number, or undefined for one that is unknown here. */
export const ggufTypeName = (id: number): GgufTypeName | undefined => namesById.get(id);

/** Bytes of a tensor, or NaN when its rows are no whole blocks or the count is not exact. @param shape row-major, innermost last. */
export function ggufTensorBytes(name: GgufTypeName, shape: readonly number[]): number {
  const { values, bytes } = ggufTensorTypes[name];
  let elements = 1;
  for (const dimension of shape) elements *= dimension;
  const inner = shape.at(-1) ?? 1;
  const total = (elements / values) * bytes;
  return inner % values === 0 && Number.isSafeInteger(elements) && Number.isSafeInteger(total) ? total : Number.NaN;
}
