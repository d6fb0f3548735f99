// What our own kernels compute, for tests that compare with it.
import { ownKernels } from "../own-kernels.ts";

/** The forms of our own kernels that this processor can run, as {@link BackendOptions.ownKernels} has them: none, that for AVX2, or that and the one for VNNI. */
export const kernelForms: readonly ("avx2" | true)[] = [
  ...(ownKernels("avx2") === undefined ? [] : (["avx2"] as const)),
  ...(ownKernels(true) === ownKernels("avx2") ? [] : [true as const]),
];

/** Whether products with 8 bits and blocks of 32 are those of {@link roundedSum}, by default in this process. */
export const roundsProducts = ownKernels() !== undefined && ownKernels() === ownKernels("avx2");

/**
 * The sum of the products of 32 levels with 8 bits and AVX2: two neighbours' products are rounded to a multiple of 8, up in the first four, the
 * third and so on, down in the others.
 */
export function roundedSum(w: (i: number) => number, x: (i: number) => number): number {
  let sum = 0;
  for (let i = 0; i < 32; i += 2) {
    const eighth = (w(i) * x(i) + w(i + 1) * x(i + 1)) / 8;
    sum += 8 * (Math.floor(i / 4) % 2 ? Math.floor(eighth) : Math.ceil(eighth));
  }
  return sum;
}
