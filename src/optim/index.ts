// Optimisers, schedules, clipping, weight averages and gradient accumulation, all over flat buffers.
export { createAccumulator, type GradientAccumulator } from "./accumulate.ts";
export { clipFactor, createNorm, createValueClipping, type GradientNorm, type NormOptions, type ValueClipping } from "./clipping.ts";
export { createEma, type EmaOptions, type WeightAverage } from "./ema.ts";
export type { GroupOptions } from "./groups.ts";
export { type NewtonSchulzOptions, orthogonalize } from "./newton-schulz.ts";
export { createOptimizer, type Optimizer, type OptimizerExtras, type StepOptions } from "./optimizer.ts";
export {
  type OptimizerKind,
  type OptimizerOptions,
  optimizerSchema,
  parseOptimizerOptions,
  type ResolvedOptimizerOptions,
  trainingOptimizerSchema,
} from "./optimizer-options.ts";
export { createSchedule, type Schedule, type ScheduleKind, type ScheduleOptions, scheduleSchema } from "./schedules.ts";
