// Status pointers of the C API as errors. ONNX Runtime puts source paths and C++ signatures into its messages; they are cut out.
import { BackendError } from "../../base/errors.ts";
import type { Functions } from "./signatures.ts";

const maxMessageLength = 600;

export const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** The error for a status that is not null; the status is released. */
export function statusError(functions: Functions, status: bigint, doing: string): BackendError {
  const code = functions.GetErrorCode(status);
  const message = functions.GetErrorMessage(status) ?? "no message";
  functions.ReleaseStatus(status);
  return new BackendError(`${doing}: ${shorten(message)}`, { hint: hintFor(code, message) });
}

/** The message without source locations, C++ signatures and stack traces, in at most 600 characters. */
export function shorten(message: string): string {
  const plain = message
    .replace(/^Stacktrace:[\s\S]*$/m, "")
    // "/path/file.cc:123 type Class::function(arguments) const [with T = float] "
    .replace(/\/?[\w./\\-]+\.(?:cc|cpp|h|hpp):\d+ [^\n]*?\)(?: const)?(?: \[with [^\]]*\])?(?= |\n|$)/g, "")
    .replace(/\s+/g, " ")
    .trim();
  return plain.length > maxMessageLength ? `${plain.slice(0, maxMessageLength)} …` : plain;
}

function hintFor(code: number, message: string): string | undefined {
  const notImplemented = 9;
  if (code === notImplemented || /Could not find an implementation/.test(message)) {
    return "ONNX Runtime has no kernel for this operator and element type on this device: use the composed emission or another dtype.";
  }
  if (/Failed to allocate memory|bad_alloc/.test(message)) return "Use a smaller model, batch, sequence or cache.";
  return undefined;
}
