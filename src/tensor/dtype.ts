// Element types: longwave's short names, their ONNX codes and the typed arrays that hold them on the host.

/** f64 is for tests and golden data; bool is one byte an element. */
export type DType = "f32" | "f64" | "i32" | "i64" | "i8" | "u8" | "bool" | "f16" | "bf16";

export type TypedArray =
  | Float32Array<ArrayBuffer>
  | Float64Array<ArrayBuffer>
  | Int32Array<ArrayBuffer>
  | BigInt64Array<ArrayBuffer>
  | Int8Array<ArrayBuffer>
  | Uint8Array<ArrayBuffer>
  | Uint16Array<ArrayBuffer>;

export interface ArrayOf {
  f32: Float32Array<ArrayBuffer>;
  f64: Float64Array<ArrayBuffer>;
  i32: Int32Array<ArrayBuffer>;
  i64: BigInt64Array<ArrayBuffer>;
  i8: Int8Array<ArrayBuffer>;
  u8: Uint8Array<ArrayBuffer>;
  bool: Uint8Array<ArrayBuffer>;
  f16: Uint16Array<ArrayBuffer>;
  bf16: Uint16Array<ArrayBuffer>;
}

/** TensorProto.DataType of the ONNX specification; ONNXTensorElementDataType of the C API uses the same numbers. */
export const onnxType: Record<DType, number> = { f32: 1, u8: 2, i8: 3, i32: 6, i64: 7, bool: 9, f16: 10, f64: 11, bf16: 16 };

export const bytesPerElement: Record<DType, number> = { f32: 4, f64: 8, i32: 4, i64: 8, i8: 1, u8: 1, bool: 1, f16: 2, bf16: 2 };

/** A typed array of `length` elements over `buffer`, without a copy. */
export function arrayOver<D extends DType>(dtype: D, buffer: ArrayBuffer, byteOffset: number, length: number): ArrayOf[D] {
  const arrays: Record<DType, new (b: ArrayBuffer, o: number, n: number) => TypedArray> = {
    f32: Float32Array,
    f64: Float64Array,
    i32: Int32Array,
    i64: BigInt64Array,
    i8: Int8Array,
    u8: Uint8Array,
    bool: Uint8Array,
    f16: Uint16Array,
    bf16: Uint16Array,
  };
  return new arrays[dtype](buffer, byteOffset, length) as ArrayOf[D];
}

export const isFloat = (dtype: DType): boolean => dtype === "f32" || dtype === "f64" || dtype === "f16" || dtype === "bf16";
