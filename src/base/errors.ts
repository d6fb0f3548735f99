// Typed errors. A user's mistake becomes one of these classes with "expected …, got …" and a hint that says what to do;
// an internal fact that fails is an InvariantError. The command line maps `exitCode` to the process's exit code.

export interface ErrorOptions {
  /** What the reader should do about it, in one sentence. */
  hint?: string;
  cause?: unknown;
}

/** Base of every error that longwave throws on purpose. */
export class LongwaveError extends Error {
  readonly hint: string | undefined;
  /** Exit code of the command line: 1 = failure, 2 = wrong usage, 130 = interrupted. */
  readonly exitCode: number = 1;

  constructor(message: string, options: ErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = new.target.name;
    this.hint = options.hint;
  }
}

/** A wrong command line, option or configuration. Exit code 2. */
export class UsageError extends LongwaveError {
  override readonly exitCode = 2;
}

/** Shapes, dtypes or dimensions that do not fit an operator or a program. */
export class ShapeError extends LongwaveError {}

/** A malformed, truncated or foreign file (checkpoint, tokenizer, model, data). */
export class FormatError extends LongwaveError {}

/** Training or evaluation data that cannot be used (missing, empty, binary, too short). */
export class DataError extends LongwaveError {}

/** A checkpoint or run folder that cannot be read, written or resumed. */
export class CheckpointError extends LongwaveError {}

/** The compute backend failed, or an object was used after `dispose`. */
export class BackendError extends LongwaveError {}

/** A loss, gradient or logit that is not finite. */
export class NotFiniteError extends LongwaveError {}

/** An environment that broke its contract: NaN, a wrong shape, an error in `step` or `reset`. */
export class EnvironmentError extends LongwaveError {}

/** A download or remote service that failed: not found, refused, unreachable, incomplete. */
export class RemoteError extends LongwaveError {}

/** Work that was stopped by a signal or an AbortSignal. Exit code 130. */
export class AbortedError extends LongwaveError {
  override readonly exitCode = 130;
}

/** A broken internal assumption: a defect of longwave, never of its user. */
export class InvariantError extends LongwaveError {}

/** Throws {@link InvariantError} unless `condition` holds. */
export function invariant(condition: unknown, message: string): asserts condition {
  if (!condition) throw new InvariantError(`invariant: ${message}`, { hint: "This is a defect of longwave; please report it." });
}

/**
 * The candidate nearest to `word` by edit distance, or undefined when none is close: one edit for every four letters; where letters are
 * only missing (learnRate, learningRate), one for every three, at least two.
 */
export function nearest(word: string, candidates: Iterable<string>): string | undefined {
  const letters = word.replace(/^-+/, "").length;
  // Any letter is an edit away from any other.
  if (letters < 2) return undefined;
  let best: string | undefined;
  let bestDistance = Number.POSITIVE_INFINITY;
  for (const candidate of candidates) {
    const [a, b] = [word.toLowerCase(), candidate.toLowerCase()];
    const distance = editDistance(a, b);
    const limit = distance === b.length - a.length ? Math.max(2, Math.floor(letters / 3)) : Math.max(1, Math.floor(letters / 4));
    if (distance <= limit && distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

/** Levenshtein distance, with an adjacent transposition counted as one edit. */
export function editDistance(a: string, b: string): number {
  let before: number[] = [];
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      let cost = Math.min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) cost = Math.min(cost, before[j - 2] + 1);
      row.push(cost);
    }
    before = previous;
    previous = row;
  }
  return previous[b.length];
}
