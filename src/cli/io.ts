// The outside world as commands see it: two text outputs, standard input, the environment and an abort signal.
// Tests hand in their own; main.ts hands in the process's.
import type { Readable } from "node:stream";
import picocolors from "picocolors";
import { UsageError } from "../base/errors.ts";

export type Colors = ReturnType<typeof picocolors.createColors>;

export interface Output {
  write(text: string): void;
  readonly isTTY: boolean;
  /** Width of the terminal in characters; 80 where there is none. */
  readonly columns: number;
  readonly colors: Colors;
}

export interface CliIo {
  readonly stdout: Output;
  readonly stderr: Output;
  readonly stdin: Readable & { isTTY?: boolean };
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Aborted by the first SIGINT or SIGTERM. */
  readonly signal: AbortSignal;
  /** How the user calls longwave. Default `longwave`. */
  readonly program?: string;
  /** Where the user is; messages shorten paths below it. Default: they do not. */
  readonly cwd?: string;
}

/** Puts a message of the library into the words of the command line (phrase.ts). */
export type Phrase = (text: string) => string;

/**
 * Whether a stream gets colours. NO_COLOR (any non-empty value) switches them off; FORCE_COLOR switches them on without a
 * terminal; TERM=dumb has none. See no-color.org.
 */
export function wantsColor(isTTY: boolean, env: CliIo["env"]): boolean {
  if (env.NO_COLOR) return false;
  if (env.FORCE_COLOR && env.FORCE_COLOR !== "0") return true;
  return isTTY && env.TERM !== "dumb";
}

/** An output over a stream of the process. */
export function outputOf(stream: NodeJS.WriteStream, env: CliIo["env"]): Output {
  const isTTY = stream.isTTY === true;
  return {
    write: (text) => {
      stream.write(text);
    },
    isTTY,
    get columns() {
      // A terminal that nobody gave a size (a container's, a script's) says 0.
      return stream.columns || 80;
    },
    colors: picocolors.createColors(wantsColor(isTTY, env)),
  };
}

/** An output that only remembers; `text()` is all that was written. */
export function bufferedOutput(options: { isTTY?: boolean; columns?: number; colors?: boolean } = {}): Output & { text(): string } {
  const { isTTY = false, columns = 80, colors = false } = options;
  const parts: string[] = [];
  return {
    write: (text) => {
      parts.push(text);
    },
    text: () => parts.join(""),
    isTTY,
    columns,
    colors: picocolors.createColors(colors),
  };
}

/** Standard input as bytes. @throws UsageError when it is a terminal, or longer than `maxBytes`. */
export async function readStdin(io: Pick<CliIo, "stdin">, maxBytes = 2 ** 30): Promise<Buffer> {
  if (io.stdin.isTTY) throw new UsageError("standard input: expected piped text, got a terminal", { hint: "Pipe a file in, or name one." });
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of io.stdin) {
    const bytes = typeof chunk === "string" ? Buffer.from(chunk) : (chunk as Buffer);
    size += bytes.length;
    if (size > maxBytes) throw new UsageError(`standard input: expected at most ${maxBytes} bytes, got more`);
    chunks.push(bytes);
  }
  return Buffer.concat(chunks);
}
