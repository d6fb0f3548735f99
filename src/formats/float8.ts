// 8-bit floats to float32 by table: E4M3 and E5M2 (Micikevicius et al. 2022, "FP8 Formats for Deep Learning"; E4M3 has no infinities)
// and E8M0, the powers of two that scale blocks in the OCP microscaling formats 1.0.

export type Float8 = "F8_E4M3" | "F8_E5M2" | "F8_E8M0";

function decode(bits: number, exponentBits: number, bias: number): number {
  const mantissaBits = 7 - exponentBits;
  const sign = bits & 128 ? -1 : 1;
  const exponent = (bits >> mantissaBits) & (2 ** exponentBits - 1);
  const mantissa = (bits & (2 ** mantissaBits - 1)) / 2 ** mantissaBits;
  return sign * (exponent === 0 ? mantissa * 2 ** (1 - bias) : (1 + mantissa) * 2 ** (exponent - bias));
}

function float8Value(type: Float8, bits: number): number {
  if (type === "F8_E8M0") return bits === 255 ? Number.NaN : 2 ** (bits - 127);
  if (type === "F8_E4M3") return (bits & 127) === 127 ? Number.NaN : decode(bits, 4, 7);
  if ((bits & 124) === 124) return bits & 3 ? Number.NaN : bits & 128 ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY;
  return decode(bits, 5, 15);
}

const tables = new Map<Float8, Float32Array>();

/** The values of all 256 bytes. */
export function float8Table(type: Float8): Float32Array {
  const table = tables.get(type) ?? Float32Array.from({ length: 256 }, (_, bits) => float8Value(type, bits));
  tables.set(type, table);
  return table;
}
