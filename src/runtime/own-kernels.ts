// Machine code of longwave's own for operators that ONNX Runtime computes slowly on some processors: native/, compiled by scripts/native.mjs
// and shipped. Everything works without it, by ONNX Runtime's operators.
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { UsageError } from "../base/errors.ts";
import type { BackendOptions } from "./backend.ts";
import { describeMachine, type Machine } from "./machine.ts";

type Wanted = BackendOptions["ownKernels"];

/**
 * Path of the library for a machine, or undefined: there is none for the platform, the processor lacks AVX2, or it has half of what the
 * faster form needs (AVX-512 without VNNI, VNNI without AVX-512), where ONNX Runtime has kernels that ours were not measured beside.
 * @param wanted see {@link BackendOptions.ownKernels}.
 * @throws UsageError for another value of LONGWAVE_KERNELS than on, off or avx2.
 */
export function ownKernels(
  wanted: Wanted = fromEnvironment(process.env.LONGWAVE_KERNELS),
  { platform, vectorExtensions }: Pick<Machine, "platform" | "vectorExtensions"> = describeMachine(),
): string | undefined {
  const has = (name: string): boolean => vectorExtensions.includes(name);
  if (wanted === false || !has("avx2") || !has("fma")) return undefined;
  const isVnni = wanted !== "avx2" && has("avx512f") && has("avx512_vnni");
  if (wanted === undefined && !isVnni && ["avx_vnni", "avx512f"].some(has)) return undefined;
  const path = fileURLToPath(new URL(`../../assets/native/${platform}${isVnni ? "-vnni" : ""}.so`, import.meta.url));
  return existsSync(path) ? path : undefined;
}

function fromEnvironment(text: string | undefined): Wanted {
  switch (text) {
    case undefined:
    case "":
      return undefined;
    case "on":
      return true;
    case "off":
      return false;
    case "avx2":
      return text;
    default:
      throw new UsageError(`LONGWAVE_KERNELS: expected on, off or avx2, got ${text}`, {
        hint: "Leave it out to have them where they are faster.",
      });
  }
}
