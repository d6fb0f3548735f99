// From how many tokens on a prompt over 8-bit weights is read with float32 copies of its matrices. A property of the machine, told by its
// flags and never by timing: the same machine gives the same bytes.

/** Break-even is at about 12 rows for the products, and compiling the program costs as much as some more ("Weights of 8 bits" in docs/log.md). */
const rowsWithoutByteProducts = 32;

/**
 * Tokens, or Infinity: never. ONNX Runtime's 8-bit product repeats the kernel of one row on x86 with nothing beyond AVX2; processors that
 * can do more, and those that do not say, keep it.
 */
export function floatPromptDefault({ platform, vectorExtensions }: { platform: string; vectorExtensions: readonly string[] }): number {
  const has = (name: string): boolean => vectorExtensions.includes(name);
  const isPlain = platform.endsWith("-x64") && has("avx2") && !["avx_vnni", "avx512f", "avx512_vnni"].some(has);
  return isPlain ? rowsWithoutByteProducts : Number.POSITIVE_INFINITY;
}
