// ONNX Runtime's numbers, and its messages as errors: source paths and C++ signatures are cut out, a hint says what to do.
import { BackendError } from "../base/errors.ts";
import type { OptimizationLevel } from "./backend.ts";

/** Severities run from 0 (verbose) to 4 (fatal). Everything worth knowing comes back as an error, so nothing else is printed. */
export const logFatal = 4;

/** GraphOptimizationLevel of the C API. */
export const optimizationLevels: Record<OptimizationLevel, number> = { none: 0, basic: 1, extended: 2, all: 99 };

/** A BackendError from a message of ONNX Runtime, shortened, with what can be done about it. */
export function runtimeError(doing: string, message: string): BackendError {
  return new BackendError(`${doing}: ${shorten(message)}`, { hint: hints.find(({ when }) => when.test(message))?.hint });
}

const maxMessageLength = 600;

/** The message without source locations, C++ signatures and stack traces, in at most 600 characters. */
export function shorten(message: string): string {
  const plain = message
    .replace(/\n\s*Stacktrace:[\s\S]*$/, "")
    // "/path/file.cc:123 type Class::function(arguments) const [with T = float] "
    .replace(/(?:[A-Za-z]:)?[\w./\\-]+\.(?:cc|cpp|h|hpp):\d+ [^\n]*?\)(?: const)?(?: \[with [^\]]*\])? /g, "")
    // "file.h:59 Function "
    .replace(/(?:[A-Za-z]:)?[\w./\\-]+\.(?:cc|cpp|h|hpp):\d+ (?:\w+ )?/g, "")
    .replace(/\[ONNXRuntimeError\] : \d+ : \w+ : /g, "")
    .replace(/Non-zero status code returned while running (\S+) node\. Name:'([^']*)' Status Message: /, "$1 node $2: ")
    .replace(/ When calling Run\(\) with pre-allocated[\s\S]*$/, "")
    .replace(/\s+/g, " ")
    .trim();
  return plain.length > maxMessageLength ? `${plain.slice(0, maxMessageLength)} …` : plain;
}

const hints: readonly { when: RegExp; hint: string }[] = [
  {
    when: /Could not find an implementation/,
    hint: "ONNX Runtime has no kernel for this operator and element type here: use a composition or another dtype.",
  },
  { when: /[Ff]ailed to allocate memory|bad_alloc/, hint: "Use a smaller model, batch, sequence or cache." },
  {
    when: /has shape \{[\d,]*\} but the computed output shape/,
    hint: "Bind an output buffer of the computed shape.",
  },
  {
    when: /External data path|external data location/i,
    hint: 'A shared initializer must name "." as its external data.',
  },
  {
    when: /cannot get file size|file_size|GetFileLength/,
    hint: "A node fed by shared initializers alone would be folded from bytes that the model does not hold: derive that tensor when the weights are loaded.",
  },
];
