import { ownKernels } from "../own-kernels.ts";

/** The forms of our own kernels that this processor can run, as {@link BackendOptions.ownKernels} has them: none, that for AVX2, or that and the one for VNNI. */
export const kernelForms: readonly ("avx2" | true)[] = [
  ...(ownKernels("avx2") === undefined ? [] : (["avx2"] as const)),
  ...(ownKernels(true) === ownKernels("avx2") ? [] : [true as const]),
];
