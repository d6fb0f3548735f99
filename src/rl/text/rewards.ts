// Reward functions: plain TypeScript over what was asked and what came out, sync or async, several with weights.
// A function that throws, gives something that is no finite number, a list of the wrong length, or nothing in time, ends the step with an
// error that names the reward and the sample; with `onError: "ignore"` it counts as not applicable there, and the failures are counted.
import { setTimeout as sleep } from "node:timers/promises";
import { AbortedError, LongwaveError, UsageError } from "../../base/errors.ts";
import { show } from "../../base/schema.ts";

/** What a reward function is given: by name, with the columns of the data set beside it. */
export interface RewardSample {
  /** Text of the prompt. */
  readonly prompt: string;
  /** Text of the completion, special tokens left out. */
  readonly completion: string;
  /** Its token ids, the end token included. */
  readonly completionIds: readonly number[];
  /** Whether an end token or stop string ended it, instead of its length. */
  readonly isComplete: boolean;
  /** Columns of the prompt's record. */
  readonly [column: string]: unknown;
}

/** A number, or null where the function does not apply to this sample. */
export type RewardValue = number | null;

export interface Reward {
  /** Name in metrics, tables and errors. */
  readonly name: string;
  /** Factor in the sum. Default 1. */
  readonly weight?: number;
  /** One sample. Calls for the samples of a batch run side by side. */
  readonly score?: (sample: RewardSample) => RewardValue | Promise<RewardValue>;
  /** All samples in one call, instead of `score`. */
  readonly scoreBatch?: (samples: readonly RewardSample[]) => readonly RewardValue[] | Promise<readonly RewardValue[]>;
}

/** A function takes its own name and the weight 1. */
export type RewardInput = Reward | NonNullable<Reward["score"]>;

export interface RewardOptions {
  /** Longest time for all calls of one reward on one batch, in seconds. A function that never yields cannot be stopped by it. Default 60. */
  timeoutSeconds?: number;
  /** stop: end the run; ignore: the sample counts as not applicable. Default stop. */
  onError?: "stop" | "ignore";
}

export interface RewardTable {
  readonly names: readonly string[];
  readonly weights: readonly number[];
  /** [sample][reward]; NaN where a reward does not apply. */
  readonly values: readonly Float64Array[];
  /** Failures that were ignored, one count a reward. */
  readonly numFailures: readonly number[];
}

/** A reward function misbehaved: which one, on which sample, and how. */
export class RewardError extends LongwaveError {}

/** Names, weights and functions checked. @throws UsageError. */
export function resolveRewards(inputs: readonly RewardInput[]): Reward[] {
  if (inputs.length === 0) throw new UsageError("rewards: expected at least one reward function, got none");
  const names = new Set<string>();
  return inputs.map((input, index) => {
    const reward: Reward = typeof input === "function" ? { name: input.name || `reward${index + 1}`, score: input } : input;
    const { name, weight = 1, score, scoreBatch } = reward;
    if (typeof name !== "string" || name === "") throw new UsageError(`rewards[${index}].name: expected some text, got ${show(name)}`);
    if (names.has(name)) throw new UsageError(`rewards: expected names that differ, got "${name}" twice`, { hint: "Give them names." });
    names.add(name);
    if ((typeof score === "function") === (typeof scoreBatch === "function"))
      throw new UsageError(`reward "${name}": expected score or scoreBatch, got ${score ? "both" : "neither"}`);
    if (!Number.isFinite(weight)) throw new UsageError(`reward "${name}": expected a finite weight, got ${weight}`);
    return { ...reward, weight };
  });
}

/**
 * Scores all samples with all rewards.
 * @throws RewardError naming the reward and the sample; AbortedError when the signal aborts while a function is awaited.
 */
export async function scoreSamples(
  rewards: readonly Reward[],
  samples: readonly RewardSample[],
  options: RewardOptions = {},
  signal?: AbortSignal,
): Promise<RewardTable> {
  const values = samples.map(() => new Float64Array(rewards.length).fill(Number.NaN));
  const numFailures: number[] = rewards.map(() => 0);
  for (const [k, reward] of rewards.entries()) {
    const outcomes = await within(reward, samples, options.timeoutSeconds ?? 60, signal);
    for (const [i, outcome] of outcomes.entries()) {
      if (typeof outcome === "number") values[i][k] = outcome;
      else if (outcome !== null) {
        if (options.onError !== "ignore") throw outcome;
        numFailures[k]++;
      }
    }
  }
  return { names: rewards.map(({ name }) => name), weights: rewards.map(({ weight = 1 }) => weight), values, numFailures };
}

type Outcome = RewardValue | RewardError;

/** One outcome a sample; a call that fails as a whole fails for every sample. */
async function within(
  reward: Reward,
  samples: readonly RewardSample[],
  seconds: number,
  signal: AbortSignal | undefined,
): Promise<readonly Outcome[]> {
  signal?.throwIfAborted();
  const done = new AbortController();
  const outcomes = reward.scoreBatch ? batchOutcomes(reward, samples) : sampleOutcomes(reward, samples);
  // Functions that all answer at once need no clock.
  if (Array.isArray(outcomes)) return outcomes;
  const pending = outcomes as PendingOutcomes;
  const abort = signal ? AbortSignal.any([signal, done.signal]) : done.signal;
  const clock = sleep(seconds * 1000, "late" as const, { signal: abort }).catch(() => "aborted" as const);
  try {
    const first = await Promise.race([pending.settled, clock]);
    if (first === "aborted") throw new AbortedError(`reward "${reward.name}": aborted while it was awaited`, { cause: signal?.reason });
    if (first === "late") {
      return pending.outcomes.map(
        (outcome, i) =>
          outcome ?? failure(reward, `expected an answer within ${seconds} s, got none`, samples, pending.isWhole ? undefined : i),
      );
    }
    return pending.outcomes as readonly Outcome[];
  } finally {
    done.abort();
  }
}

interface PendingOutcomes {
  /** Filled while calls settle. */
  readonly outcomes: (Outcome | undefined)[];
  readonly settled: Promise<unknown>;
  /** One call for all samples. */
  readonly isWhole: boolean;
}

function sampleOutcomes(reward: Reward, samples: readonly RewardSample[]): Outcome[] | PendingOutcomes {
  const outcomes: (Outcome | undefined)[] = samples.map(() => undefined);
  const waiting: Promise<void>[] = [];
  for (const [i, sample] of samples.entries()) {
    const settle = (value: unknown): void => {
      outcomes[i] = checked(reward, value, samples, i);
    };
    const fail = (cause: unknown): void => {
      outcomes[i] = thrown(reward, cause, samples, i);
    };
    try {
      const value: unknown = reward.score?.(sample);
      if (isPromise(value)) waiting.push(value.then(settle, fail));
      else settle(value);
    } catch (cause) {
      fail(cause);
    }
  }
  return waiting.length === 0 ? (outcomes as Outcome[]) : { outcomes, settled: Promise.all(waiting), isWhole: false };
}

function batchOutcomes(reward: Reward, samples: readonly RewardSample[]): Outcome[] | PendingOutcomes {
  const outcomes: (Outcome | undefined)[] = samples.map(() => undefined);
  const all = (make: (i: number) => Outcome): Outcome[] => {
    for (const i of samples.keys()) outcomes[i] = make(i);
    return outcomes as Outcome[];
  };
  const settle = (values: unknown): Outcome[] => {
    const isList = Array.isArray(values) || (ArrayBuffer.isView(values) && !(values instanceof DataView));
    const length = isList ? (values as ArrayLike<unknown>).length : undefined;
    if (length === samples.length) return all((i) => checked(reward, (values as ArrayLike<unknown>)[i], samples, i));
    const got = length === undefined ? show(values) : `${length}`;
    return all(() => failure(reward, `expected a list of ${samples.length} values, one a sample, got ${got}`, samples));
  };
  const fail = (cause: unknown): Outcome[] => all(() => thrown(reward, cause, samples));
  try {
    const values: unknown = reward.scoreBatch?.(samples);
    return isPromise(values) ? { outcomes, settled: values.then(settle, fail), isWhole: true } : settle(values);
  } catch (cause) {
    return fail(cause);
  }
}

const isPromise = (value: unknown): value is Promise<unknown> =>
  typeof (value as { then?: unknown } | null | undefined)?.then === "function";

function checked(reward: Reward, value: unknown, samples: readonly RewardSample[], index: number): Outcome {
  // Python's None and a missing return both mean "nothing to say"; only null is taken for that, so that a forgotten return is found.
  if (value === null) return null;
  if (typeof value === "boolean") return value ? 1 : 0;
  if (typeof value === "number" && Number.isFinite(value)) return value;
  return failure(reward, `expected a finite number or null, got ${show(value)}`, samples, index);
}

function thrown(reward: Reward, cause: unknown, samples: readonly RewardSample[], index?: number): RewardError {
  return failure(reward, `threw ${cause instanceof Error ? `${cause.name}: ${cause.message}` : show(cause)}`, samples, index, cause);
}

/** @param index of the sample; absent where the call was for all of them. */
function failure(reward: Reward, what: string, samples: readonly RewardSample[], index?: number, cause?: unknown): RewardError {
  const place =
    index === undefined
      ? `, batch of ${samples.length}`
      : `, sample ${index} (prompt ${shorten(samples[index].prompt)}, completion ${shorten(samples[index].completion)})`;
  return new RewardError(`reward "${reward.name}"${place}: ${what}`, {
    cause,
    hint: 'Return null where the reward does not apply, or set rewardErrors to "ignore".',
  });
}

const shorten = (text: string): string => JSON.stringify(text.length > 60 ? `${text.slice(0, 57)}...` : text);
