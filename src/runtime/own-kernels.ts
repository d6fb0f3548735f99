// Machine code of longwave's own for an operator that ONNX Runtime computes slowly: native/matmul-blocks.c, compiled and shipped for the
// platforms where it pays. Everything works without it, by ONNX Runtime's operators.
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describeMachine, type Machine } from "./machine.ts";

/** The domain of the operators in a program. */
export const ownDomain = "longwave";

/** x times blocks of 4 or 8 bits: attributes and inputs of MatMulNBits, and `tasks`, into how many parts it is divided for the threads. */
export const matMulBlocks = "MatMulBlocks";

/** What the library exports: a function that gives the address of an operator's description. */
export const exportedBy = { [matMulBlocks]: "longwave_matmul_blocks" } as const;

/**
 * The library of kernels for this machine, or undefined: there is none for the platform, or ONNX Runtime has good ones (processors with
 * instructions for products of bytes), or LONGWAVE_KERNELS=off.
 * @param wanted take it wherever the processor can run it (true), or not at all (false). Default: where it is faster.
 */
export function ownKernels(
  wanted?: boolean,
  machine: Pick<Machine, "platform" | "vectorExtensions"> = describeMachine(),
  environment: Partial<Record<string, string>> = process.env,
): string | undefined {
  const has = (name: string): boolean => machine.vectorExtensions.includes(name);
  if (wanted === false || (wanted === undefined && environment.LONGWAVE_KERNELS === "off")) return undefined;
  if (!has("avx2") || !has("fma")) return undefined;
  if (wanted !== true && ["avx_vnni", "avx512f", "avx512_vnni"].some(has)) return undefined;
  const path = fileURLToPath(new URL(`../../assets/native/${machine.platform}.so`, import.meta.url));
  return existsSync(path) ? path : undefined;
}
