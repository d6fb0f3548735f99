// Machine code of longwave's own for operators that ONNX Runtime computes slowly on some processors: native/, compiled by scripts/native.mjs
// and shipped. Everything works without it, by ONNX Runtime's operators.
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { UsageError } from "../base/errors.ts";
import { describeMachine, type Machine } from "./machine.ts";

/**
 * Path of the library for a machine, or undefined: there is none for the platform, the processor lacks AVX2, or ONNX Runtime's kernels are
 * good there (with instructions for products of bytes: VNNI).
 * @param wanted true: wherever the processor can run it; false: not at all. Default: where it is faster, unless LONGWAVE_KERNELS=off.
 * @throws UsageError for another value of LONGWAVE_KERNELS than on or off.
 */
export function ownKernels(
  wanted: boolean | undefined = fromEnvironment(process.env.LONGWAVE_KERNELS),
  { platform, vectorExtensions }: Pick<Machine, "platform" | "vectorExtensions"> = describeMachine(),
): string | undefined {
  const has = (name: string): boolean => vectorExtensions.includes(name);
  if (wanted === false || !has("avx2") || !has("fma")) return undefined;
  if (wanted === undefined && ["avx_vnni", "avx512f", "avx512_vnni"].some(has)) return undefined;
  const path = fileURLToPath(new URL(`../../assets/native/${platform}.so`, import.meta.url));
  return existsSync(path) ? path : undefined;
}

function fromEnvironment(text: string | undefined): boolean | undefined {
  if (text === undefined || text === "") return undefined;
  if (text !== "on" && text !== "off")
    throw new UsageError(`LONGWAVE_KERNELS: expected on or off, got ${text}`, { hint: "Leave it out to have them where they are faster." });
  return text === "on";
}
