// Verifiers by the names that flags use.
import { UsageError } from "../base/errors.ts";
import type { Verifier } from "../decode/verifiers/verifier.ts";

/** Undefined for `lossless`: generation then takes greedy or token match, whichever the request asks for. @throws UsageError. */
export async function verifierOf(name: string, isGreedy: boolean): Promise<Verifier | undefined> {
  const { blockVerifier, rejectionVerifier, relaxedVerifier, typicalVerifier } = await import("../decode/index.ts");
  if (isGreedy && (name === "rejection" || name === "block"))
    throw new UsageError(`verifier: expected lossless without sampling, got ${name}`, { hint: "Leave --verifier out, or sample." });
  const verifiers: Record<string, () => Verifier | undefined> = {
    lossless: () => undefined,
    rejection: () => rejectionVerifier,
    block: () => blockVerifier,
    typical: () => typicalVerifier(),
    relaxed: () => relaxedVerifier(),
  };
  return verifiers[name]();
}
