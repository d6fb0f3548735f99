// One line about work under way: redrawn in place on a terminal, a plain line every few seconds elsewhere.
import type { Output } from "../io.ts";

export interface LiveLine {
  /** `text` is asked for only when it is shown. */
  update(text: () => string): void;
  /** Takes the line away; what was written as plain lines stays. Call it also when the work threw. */
  clear(): void;
}

export interface LiveLineOptions {
  /** Seconds between plain lines, and before the first. Default 5. */
  everySeconds?: number;
  /** Milliseconds, for tests. Default `performance.now`. */
  now?: () => number;
}

/** A terminal needs no more than ten pictures a second. */
const redrawMs = 100;
const clearLine = "\r\u001b[2K";

export function createLiveLine(output: Output, { everySeconds = 5, now = () => performance.now() }: LiveLineOptions = {}): LiveLine {
  let last = output.isTTY ? Number.NEGATIVE_INFINITY : now();
  let isShown = false;
  return {
    update(text) {
      if (now() - last < (output.isTTY ? redrawMs : everySeconds * 1000)) return;
      last = now();
      isShown = output.isTTY;
      output.write(isShown ? `${clearLine}${text().slice(0, output.columns - 1)}` : `${text()}\n`);
    },
    clear() {
      if (isShown) output.write(clearLine);
      isShown = false;
    },
  };
}
