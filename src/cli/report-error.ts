// What a failure looks like: `error: …`, `hint: …` and an exit code; the stack only with LONGWAVE_DEBUG=1. Ctrl-C is no error.
import { storageRemedy } from "../base/atomic.ts";
import { LongwaveError } from "../base/errors.ts";
import { interruptedExitCode } from "../engine/signals.ts";
import type { CliIo, Phrase } from "./io.ts";
import { printable } from "./render/format.ts";

/** Writes the error to standard error. Returns the exit code: 2 usage, 1 failure, 130 interrupted. */
export function reportError(error: unknown, io: Pick<CliIo, "stderr" | "env">, phrase: Phrase = (text) => text): number {
  const { stderr, env } = io;
  const { colors } = stderr;
  const { message, hint, exitCode } = describe(error);
  // Messages quote files and their contents.
  const label = exitCode === interruptedExitCode ? "" : `${colors.red("error:")} `;
  stderr.write(`${label}${printable(phrase(message))}\n`);
  if (hint !== undefined) stderr.write(`${colors.yellow("hint:")} ${printable(phrase(hint))}\n`);
  if (env.LONGWAVE_DEBUG === "1") {
    for (let at: unknown = error; at instanceof Error; at = at.cause) {
      stderr.write(`${colors.dim(`${at === error ? "" : "caused by "}${at.stack ?? at.message}`)}\n`);
    }
  }
  return exitCode;
}

const alikeForReading = new Set(["ENOSPC", "EDQUOT", "EROFS", "EFBIG", "ELOOP", "ENAMETOOLONG", "EMFILE", "EIO"]);

function describe(error: unknown): { message: string; hint: string | undefined; exitCode: number } {
  if (error instanceof LongwaveError) return { message: error.message, hint: error.hint, exitCode: error.exitCode };
  if (!(error instanceof Error)) return { message: String(error), hint: undefined, exitCode: 1 };
  if (error.name === "AbortError") return { message: "interrupted", hint: undefined, exitCode: interruptedExitCode };
  // The operating system's refusals (ENOENT, EACCES, ENOSPC ...) name the file themselves. Some mean the same whether it was to be read or written.
  const { syscall, code } = error as NodeJS.ErrnoException;
  if (typeof syscall === "string")
    return { message: error.message, hint: alikeForReading.has(String(code)) ? storageRemedy(error) : undefined, exitCode: 1 };
  return {
    message: `unexpected ${error.name}: ${error.message}`,
    hint: "This is a defect of longwave. LONGWAVE_DEBUG=1 shows where it happened; please report it.",
    exitCode: 1,
  };
}
