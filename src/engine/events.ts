// What a run tells the outside: a discriminated union of plain, JSON-serialisable events.
// The library never prints; progress bars, metrics files and reports are consumers of this stream.

/** Numbers by name, e.g. `{ loss: 2.1, gradientNorm: 0.8, learningRate: 3e-4 }`. */
export type Metrics = Readonly<Record<string, number>>;

/** Values that survive JSON unchanged. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };
export type JsonRecord = { readonly [key: string]: Json };

interface BaseEvent {
  /** Completed steps when the event happened: 0 before the first one, `total` at the end. Environment steps where an environment is learnt in. */
  readonly step: number;
  /** Steps of the whole run. */
  readonly total: number;
  /** Wall time in milliseconds since 1970. */
  readonly time: number;
}

/** Always the first event. */
export interface RunStartEvent extends BaseEvent {
  readonly kind: "run-start";
  /** Folder of the checkpoint that the run goes on from; absent for a new run. */
  readonly resumedFrom?: string;
  readonly config?: JsonRecord;
}

/** One step of learning is done. With `logEvery` above 1 the steps between are silent. */
export interface StepEvent extends BaseEvent {
  readonly kind: "step";
  /** As the step returned them; of this step alone, not averaged over silent ones. */
  readonly metrics: Metrics;
  /** Seconds spent in steps since the last step event. */
  readonly seconds: number;
  /** Tokens (or samples, or environment steps) processed since the last step event. */
  readonly tokens: number;
  /** Seconds of the run so far, evaluations and checkpoints included, pauses between resumes not. */
  readonly elapsedSeconds: number;
  /** Tokens of the run so far. */
  readonly totalTokens: number;
  /** Estimated seconds to the last step, from the pace since the start or resume. */
  readonly remainingSeconds: number;
}

export interface EvaluationEvent extends BaseEvent {
  readonly kind: "evaluation";
  readonly metrics: Metrics;
  readonly seconds: number;
  /** True when `keepBest` is on and this is the best evaluation so far. */
  readonly best: boolean;
}

export type CheckpointReason = "interval" | "best" | "final" | "aborted";

/** A checkpoint is complete on disk. */
export interface CheckpointEvent extends BaseEvent {
  readonly kind: "checkpoint";
  readonly path: string;
  readonly reason: CheckpointReason;
  readonly bytes: number;
  readonly seconds: number;
}

/** What the model produces now: plain text, or records such as `{ prompt, completion, reward }`. */
export interface SampleEvent extends BaseEvent {
  readonly kind: "sample";
  readonly sample: string | readonly JsonRecord[];
}

export type WarningCode =
  | "checkpoint-failed"
  | "checkpoint-unreadable"
  | "checkpoints-abandoned"
  | "settings-changed"
  | "nothing-left"
  | "not-finite"
  | "sink-failed"
  | "other";

/** Something to look at; the run goes on. */
export interface WarningEvent extends BaseEvent {
  readonly kind: "warning";
  readonly code: WarningCode;
  readonly message: string;
  readonly hint?: string;
}

export type EndReason = "finished" | "done" | "early-stopping" | "aborted" | "not-finite" | "failed";

/**
 * Always the last event, also when the generator throws right after it (`aborted`, `not-finite`, `failed`).
 * `done`: the trainable itself said that there is nothing left to learn.
 */
export interface RunEndEvent extends BaseEvent {
  readonly kind: "run-end";
  readonly reason: EndReason;
  readonly elapsedSeconds: number;
  readonly totalTokens: number;
  /** Folder of the newest checkpoint of the run. */
  readonly checkpoint?: string;
  /** The best evaluation, when `keepBest` is on. */
  readonly best?: BestEvaluation;
}

export interface BestEvaluation {
  readonly step: number;
  readonly metric: string;
  readonly value: number;
}

/** Preparation before the loop (tokenizer, data, model), told by recipes ahead of `run-start`; `step` is 0. */
export interface StageEvent extends BaseEvent {
  readonly kind: "stage";
  /** One line. Events of one stage repeat its name while it goes on. */
  readonly name: string;
  readonly message: string;
  /** Share done, 0 to 1; absent where it is not known. */
  readonly progress?: number;
  readonly metrics?: Metrics;
}

/** A result that is more than numbers by step: texts before and after, a token tree, a table. Reports know the names that they draw. */
export interface ArtifactEvent extends BaseEvent {
  readonly kind: "artifact";
  readonly name: string;
  readonly data: JsonRecord;
}

export type RunEvent =
  | StageEvent
  | ArtifactEvent
  | RunStartEvent
  | StepEvent
  | EvaluationEvent
  | CheckpointEvent
  | SampleEvent
  | WarningEvent
  | RunEndEvent;

/** Tokens a second of a step event; 0 when it carries none. */
export const tokensPerSecond = (event: StepEvent): number => (event.seconds > 0 ? event.tokens / event.seconds : 0);

/** Runs a stream to its end and returns what it yielded; for tests and for callers that only want the outcome. */
export async function collectEvents(events: AsyncIterable<RunEvent>): Promise<RunEvent[]> {
  const collected: RunEvent[] = [];
  for await (const event of events) collected.push(event);
  return collected;
}
