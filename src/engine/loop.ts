// The step loop that training on data, reinforcement learning and drafter training share: steps, evaluations, samples, checkpoints,
// early stopping and interruption, told as a stream of events. What is due after a step is a function of the step and of the saved
// progress alone, so that a run which was interrupted anywhere goes on exactly as if it had not been.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import { stageDirectory, storageError } from "../base/atomic.ts";
import { AbortedError, CheckpointError, invariant, NotFiniteError, UsageError } from "../base/errors.ts";
import { parseOptions } from "../base/schema.ts";
import { type Checkpoint, newProgress, type Progress } from "./checkpoint-manifest.ts";
import type { CheckpointStore } from "./checkpoints.ts";
import type { CheckpointReason, EndReason, JsonRecord, Metrics, RunEvent, WarningCode } from "./events.ts";
import { changeableSettings, type LoopSettings, loopSchema } from "./loop-options.ts";
import { type ResumeReference, resumeFrom } from "./resume.ts";
import { replaceNonFinite } from "./sinks/jsonl.ts";
import type { StepResult, Trainable } from "./trainable.ts";

export interface LoopOptions extends LoopSettings {
  /** Where checkpoints go. Without it nothing is saved. */
  checkpoints?: CheckpointStore;
  /** Go on from this checkpoint. Default: a new run. */
  resume?: ResumeReference;
  /** The run's whole configuration, compared at resume. Default empty. */
  config?: JsonRecord;
  /** Names of settings that may differ at resume. Default {@link changeableSettings}. */
  changeable?: readonly string[];
  /**
   * What a step counts for in events, names of checkpoints and messages: a step of reinforcement learning is a rollout of so many environment
   * steps. `steps` and the `…Every` settings count the loop's own. Default 1.
   */
  stepSize?: number;
}

/** The loop gives the event loop a turn when this long has passed since the last one. */
const turnMs = 25;

/**
 * Runs a trainable. The first event is `run-start`, the last `run-end`, whatever happens between.
 * After an abort the running step is finished, or given up by the trainable, and what is complete is saved before the generator throws.
 * An error of the trainable passes through unchanged and leaves earlier checkpoints as they are. A consumer that stops reading ends the run without saving: abort it instead.
 * @param signal aborts the run; see `installSignalHandlers`.
 * @throws AbortedError after `signal` aborted, NotFiniteError for a loss or gradient norm that is not finite, CheckpointError when
 * a checkpoint cannot be resumed or nothing can be saved, UsageError for wrong options.
 */
export async function* runLoop(trainable: Trainable, options: LoopOptions, signal?: AbortSignal): AsyncGenerator<RunEvent> {
  const { checkpoints, resume, config = {}, changeable = changeableSettings, stepSize = 1, ...given } = options;
  const settings = parseOptions(loopSchema, given);
  if ((settings.keepBest || settings.earlyStopping) && (settings.evaluateEvery === 0 || !trainable.evaluate))
    throw new UsageError("keepBest, earlyStopping: expected evaluations, got none", {
      hint: trainable.evaluate ? "Set evaluateEvery." : "This run has nothing to evaluate on.",
    });
  if (resume !== undefined && !checkpoints) throw new UsageError("resume: expected a folder of checkpoints, got none");

  const resumed = checkpoints && resume !== undefined ? await resumeFrom(checkpoints, resume, trainable, config, changeable) : undefined;
  const from = resumed?.checkpoint;
  const isOwn = checkpoints !== undefined && from?.path === checkpoints.pathOf(from?.step ?? 0);
  if (checkpoints && !isOwn && checkpoints.steps().length > 0)
    throw new CheckpointError(
      `${checkpoints.directory}: expected no checkpoints of another run, got steps ${checkpoints.steps().join(", ")}`,
      {
        hint: "Resume that run, or give the new one a folder of its own.",
      },
    );
  const firstStep = from ? ownStep(from, stepSize) : 0;
  const run: RunState = {
    trainable,
    settings,
    checkpoints,
    config,
    stepSize,
    step: firstStep,
    progress: { ...(from?.progress ?? newProgress()), ...(stepSize === 1 ? {} : { stepSize }) },
    elapsedBefore: from?.progress.elapsedSeconds ?? 0,
    startedAt: performance.now(),
    firstStep,
    savedAt: performance.now(),
    saved: from,
    stepSeconds: 0,
  };
  yield stamp(run, { kind: "run-start", ...(from && { resumedFrom: from.path }), ...(options.config && { config }) });
  for (const found of resumed?.warnings ?? []) yield stamp(run, { kind: "warning", ...found });
  if (from && run.step >= settings.steps)
    yield warning(
      run,
      "nothing-left",
      `nothing is left to train: the run is at step ${counted(run)}, and ${settings.steps * stepSize} were asked for`,
      `Set steps above ${counted(run)} to go on.`,
    );
  let reason: EndReason;
  try {
    reason = yield* runToEnd(run, signal);
  } catch (error) {
    yield endOf(run, error instanceof NotFiniteError ? "not-finite" : error instanceof AbortedError ? "aborted" : "failed");
    throw error;
  }
  yield endOf(run, reason);
  if (reason === "aborted") throw abortedError(run, signal);
}

type Settings = ReturnType<typeof parseOptions<typeof loopSchema>>;

/** The loop's own number of steps. A checkpoint that tells no size was written when updates were counted. */
function ownStep({ path, step, progress }: Checkpoint, stepSize: number): number {
  if (progress.stepSize === undefined) return step;
  if (progress.stepSize === stepSize) return step / stepSize;
  throw new CheckpointError(`resume ${path}: expected ${progress.stepSize} counted steps for one of the run, got ${stepSize}`);
}

interface RunState {
  readonly trainable: Trainable;
  readonly settings: Settings;
  readonly checkpoints: CheckpointStore | undefined;
  readonly config: JsonRecord;
  readonly stepSize: number;
  /** Completed steps. */
  step: number;
  progress: Progress;
  /** Seconds of the run before this start, and the clock at this start. */
  readonly elapsedBefore: number;
  readonly startedAt: number;
  readonly firstStep: number;
  savedAt: number;
  /** The newest checkpoint, with the step that it is named by. */
  saved: { step: number; path: string } | undefined;
  /** Seconds in steps since the last step event. */
  stepSeconds: number;
}

/** A step or an evaluation that is given up after an abort has changed nothing: the steps before it are saved. */
async function* runToEnd(run: RunState, signal: AbortSignal | undefined): AsyncGenerator<RunEvent, EndReason> {
  try {
    return yield* runSteps(run, signal);
  } catch (error) {
    if (!signal?.aborted || !isAbort(error, signal)) throw error;
    yield* saveIfNew(run, "aborted");
    return "aborted";
  }
}

const isAbort = (error: unknown, signal: AbortSignal): boolean =>
  error === signal.reason || error instanceof AbortedError || (error instanceof Error && error.name === "AbortError");

async function* runSteps(run: RunState, signal: AbortSignal | undefined): AsyncGenerator<RunEvent, EndReason> {
  const { trainable, settings, progress } = run;
  let lastTurn = performance.now();
  for (;;) {
    if (performance.now() - lastTurn > turnMs) {
      await nextTurn();
      lastTurn = performance.now();
    }
    if (signal?.aborted) {
      yield* saveIfNew(run, "aborted");
      return "aborted";
    }
    // What is due after `step` steps. All of it is remembered, so that a run resumed here does not do it twice.
    const last = run.step >= settings.steps || progress.done;
    let best = false;
    const bestBefore = progress.best;
    if (isEvaluationDue(run, last)) best = yield* evaluate(run);
    if (trainable.sample && isDue(settings.sampleEvery, run.step) && progress.sampledAt !== run.step) {
      const sample = await trainable.sample();
      progress.sampledAt = run.step;
      yield stamp(run, { kind: "sample", sample });
    }
    const stalled = settings.earlyStopping !== undefined && progress.stalledEvaluations >= settings.earlyStopping.patience;
    if (last || stalled) {
      yield* saveIfNew(run, "final");
      return progress.done ? "done" : last ? "finished" : "early-stopping";
    }
    const overdue = settings.checkpointSeconds > 0 && secondsSince(run.savedAt) >= settings.checkpointSeconds;
    if (best) {
      yield* saveIfNew(run, "best");
      // The best one on disk is what later evaluations compete with.
      if (run.checkpoints && run.saved?.step !== counted(run)) progress.best = bestBefore;
    } else if (run.step > 0 && (isDue(settings.checkpointEvery, run.step) || overdue)) yield* saveIfNew(run, "interval");

    const startedAt = performance.now();
    const pending = trainable.step(run.step);
    const result = pending instanceof Promise ? await pending : pending;
    run.stepSeconds += secondsSince(startedAt);
    run.step++;
    progress.totalTokens += result.tokens ?? 0;
    progress.done = result.done === true;
    if (run.step % settings.logEvery === 0 || run.step >= settings.steps || progress.done) yield stepEvent(run, result.metrics);
    yield* checkFinite(run, result);
  }
}

const isDue = (every: number, step: number): boolean => every > 0 && step > 0 && step % every === 0;

function isEvaluationDue({ trainable, settings, step, progress }: RunState, last: boolean): boolean {
  if (!trainable.evaluate || progress.evaluatedAt === step) return false;
  if (step === 0) return settings.evaluateFirst;
  return isDue(settings.evaluateEvery, step) || (last && settings.evaluateEvery > 0);
}

/** @returns whether this is the best evaluation so far. */
async function* evaluate(run: RunState): AsyncGenerator<RunEvent, boolean> {
  const { trainable, settings, progress, step } = run;
  const startedAt = performance.now();
  const metrics = await trainable.evaluate?.();
  invariant(metrics, "an evaluation was due without anything to evaluate");
  progress.evaluatedAt = step;
  let best = false;
  if (settings.keepBest) {
    const { metric, mode } = settings.keepBest;
    const value = metricOf(metrics, metric, "keepBest");
    best = improves(value, progress.best?.value, mode, 0);
    if (best) progress.best = { step: counted(run), metric, value };
  }
  if (settings.earlyStopping) {
    const { metric, mode, minDelta } = settings.earlyStopping;
    const value = metricOf(metrics, metric, "earlyStopping");
    if (improves(value, progress.toBeat, mode, minDelta)) {
      progress.toBeat = value;
      progress.stalledEvaluations = 0;
    } else progress.stalledEvaluations++;
  }
  yield stamp(run, { kind: "evaluation", metrics, seconds: secondsSince(startedAt), best });
  return best;
}

function metricOf(metrics: Metrics, name: string, option: string): number {
  if (metrics[name] !== undefined) return metrics[name];
  throw new UsageError(`${option}.metric: expected one of ${Object.keys(metrics).join(", ") || "no metrics"}, got "${name}"`);
}

/** A value that is not finite never improves; it could not be saved either. */
function improves(value: number, toBeat: number | undefined, mode: "min" | "max", minDelta: number): boolean {
  if (!Number.isFinite(value)) return false;
  if (toBeat === undefined) return true;
  return mode === "min" ? value < toBeat - minDelta : value > toBeat + minDelta;
}

/** Saves unless the newest checkpoint is of this very step. A failure is a warning as long as an older checkpoint is there to go back to. */
async function* saveIfNew(run: RunState, reason: CheckpointReason): AsyncGenerator<RunEvent> {
  const { trainable, checkpoints, config, settings, progress } = run;
  const step = counted(run);
  if (!checkpoints || run.saved?.step === step) return;
  // A run that was stopped before its first step has nothing to save.
  if (step === 0 && reason === "aborted") return;
  const startedAt = performance.now();
  progress.elapsedSeconds = elapsed(run);
  run.savedAt = startedAt;
  try {
    const { path, bytes } = await checkpoints.save({
      step,
      config,
      state: trainable.state?.() ?? {},
      progress,
      previous: run.saved?.step,
      write: (directory) => trainable.save(directory),
      keepLast: settings.keepLast,
    });
    run.saved = { step, path };
    yield stamp(run, { kind: "checkpoint", path, reason, bytes, seconds: secondsSince(startedAt) });
  } catch (error) {
    const canGoOn = reason === "interval" || reason === "best";
    if (!(error instanceof CheckpointError) || !canGoOn || !run.saved) throw error;
    yield warning(run, "checkpoint-failed", error.message, `${error.hint ?? ""} The next one is tried as planned.`.trim());
  }
}

async function* checkFinite(run: RunState, result: StepResult): AsyncGenerator<RunEvent> {
  const { settings, progress } = run;
  const step = counted(run);
  const wrong = settings.watchedMetrics.filter((name) => result.metrics[name] !== undefined && !Number.isFinite(result.metrics[name]));
  if (wrong.length === 0) {
    progress.consecutiveSkips = 0;
    return;
  }
  const values = wrong.map((name) => `${name} ${result.metrics[name]}`).join(", ");
  progress.consecutiveSkips++;
  if (settings.onNotFinite === "skip" && result.skipped && progress.consecutiveSkips < settings.skipLimit) {
    yield warning(run, "not-finite", `step ${step}: skipped, because of ${values}`);
    return;
  }
  const { text, hint } = await dumpStep(run, result);
  const skips = settings.onNotFinite === "skip" && result.skipped ? ` in ${progress.consecutiveSkips} steps in a row` : "";
  throw new NotFiniteError(`step ${step}: expected finite numbers, got ${values}${skips}${text}`, {
    hint: `${hint}Resume from the last checkpoint with a lower learning rate, stronger clipping or a longer warm-up.`,
  });
}

/** `nan-step-<n>/` in the run's folder: the step's metrics and what the trainable adds. */
async function dumpStep(run: RunState, result: StepResult): Promise<{ text: string; hint: string }> {
  const { trainable, checkpoints } = run;
  const step = counted(run);
  if (!checkpoints) return { text: "", hint: "" };
  const path = join(checkpoints.runDirectory, `nan-step-${step}`);
  try {
    const staged = stageDirectory(path);
    try {
      await trainable.dump?.(staged.path);
      writeFileSync(join(staged.path, "metrics.json"), `${JSON.stringify({ step, ...result }, replaceNonFinite, 2)}\n`);
      staged.commit();
    } finally {
      staged.discard();
    }
    return { text: "", hint: `The step was written to ${path}. ` };
  } catch (cause) {
    // The finding itself matters more than its record.
    const error = storageError(cause, path);
    return { text: ` (and no record of it: ${error instanceof Error ? error.message : String(error)})`, hint: "" };
  }
}

function stepEvent(run: RunState, metrics: Metrics): RunEvent {
  const pace = secondsSince(run.startedAt) / (run.step - run.firstStep);
  const event = stamp(run, {
    kind: "step",
    metrics,
    seconds: run.stepSeconds,
    tokens: run.progress.totalTokens - run.progress.loggedTokens,
    elapsedSeconds: elapsed(run),
    totalTokens: run.progress.totalTokens,
    remainingSeconds: run.progress.done ? 0 : pace * Math.max(0, run.settings.steps - run.step),
  });
  run.stepSeconds = 0;
  run.progress.loggedTokens = run.progress.totalTokens;
  return event;
}

const endOf = (run: RunState, reason: EndReason): RunEvent =>
  stamp(run, {
    kind: "run-end",
    reason,
    elapsedSeconds: elapsed(run),
    totalTokens: run.progress.totalTokens,
    ...(run.saved && { checkpoint: run.saved.path }),
    ...(run.progress.best && { best: run.progress.best }),
  });

const warning = (run: RunState, code: WarningCode, message: string, hint?: string): RunEvent =>
  stamp(run, { kind: "warning", code, message, ...(hint !== undefined && { hint }) });

function abortedError(run: RunState, signal: AbortSignal | undefined): AbortedError {
  const reason: unknown = signal?.reason;
  const why = reason instanceof AbortedError ? reason.message : "aborted";
  return new AbortedError(`run: ${why} after step ${counted(run)} of ${run.settings.steps * run.stepSize}`, {
    cause: reason,
    hint: run.saved ? `Resume from ${run.saved.path}.` : undefined,
  });
}

type Distribute<T> = T extends RunEvent ? Omit<T, "step" | "total" | "time"> : never;

const stamp = (run: RunState, { kind, ...event }: Distribute<RunEvent>): RunEvent =>
  ({ kind, step: counted(run), total: run.settings.steps * run.stepSize, time: Date.now(), ...event }) as RunEvent;

/** Completed steps as events and checkpoints count them. */
const counted = ({ step, stepSize }: RunState): number => step * stepSize;

const secondsSince = (start: number): number => (performance.now() - start) / 1000;
const elapsed = (run: RunState): number => run.elapsedBefore + secondsSince(run.startedAt);
