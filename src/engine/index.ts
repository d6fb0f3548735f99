export { type Checkpoint, type Progress, readCheckpoint } from "./checkpoint-manifest.ts";
export { type CheckpointReference, CheckpointStore, leftPrefix, openCheckpoint, type SaveRequest } from "./checkpoints.ts";
export { type ConfigDifference, compareConfigs, describeDifferences, isCovered } from "./config-difference.ts";
export {
  type ArtifactEvent,
  type BestEvaluation,
  type CheckpointEvent,
  type CheckpointReason,
  collectEvents,
  type EndReason,
  type EvaluationEvent,
  type Json,
  type JsonRecord,
  type Metrics,
  type RunEndEvent,
  type RunEvent,
  type RunStartEvent,
  type SampleEvent,
  type StageEvent,
  type StepEvent,
  tokensPerSecond,
  type WarningCode,
  type WarningEvent,
} from "./events.ts";
export { type LoopOptions, runLoop } from "./loop.ts";
export { changeableSettings, type LoopSettings, loopSchema } from "./loop-options.ts";
export { createModelOptimizer } from "./model-optimizer.ts";
export type { ResumeReference } from "./resume.ts";
export {
  createRunDirectory,
  expectWritable,
  listRuns,
  type NewRun,
  openRunDirectory,
  type RunDirectory,
  runsNear,
} from "./run-directory.ts";
export { deriveSeed, type SeedStreams, seedStreams } from "./seeds.ts";
export { installSignalHandlers, interruptedExitCode, type SignalHandlers, type SignalOptions } from "./signals.ts";
export { createJsonlSink, readMetrics } from "./sinks/jsonl.ts";
export { type Sink, withSinks } from "./sinks/sink.ts";
export { createTensorBoardSink } from "./sinks/tensorboard.ts";
export type { StepResult, Trainable } from "./trainable.ts";
export { checkTrainerState, type NamedBuffers, restoreTrainerState, saveTrainerState } from "./trainer-state.ts";
