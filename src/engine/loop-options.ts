// Settings of the step loop: one schema, from which flags, help and validation come.
import { z } from "zod";

const every = (what: string) => z.number().int().nonnegative().describe(`${what} every so many steps; 0 = never`);
const metric = z.string().min(1).describe("Name of an evaluation metric, such as loss");
const mode = z.enum(["min", "max"]).describe("Whether a smaller or a larger value is better").default("min");

export const loopSchema = z.strictObject({
  steps: z.number().int().nonnegative().describe("Steps of the whole run, those before a resume included"),
  logEvery: z.number().int().positive().describe("Emit the metrics of every so many-th step, and of the last one").default(1),
  evaluateEvery: every("Evaluate, also after the last step,").default(0),
  evaluateFirst: z.boolean().describe("Evaluate before the first step too").default(false),
  sampleEvery: every("Produce samples").default(0),
  checkpointEvery: every("Save; a checkpoint is also written at the end and on interruption. Save").default(0),
  checkpointSeconds: z.number().nonnegative().describe("Save when so many seconds have passed since the last save; 0 = never").default(0),
  keepLast: z.number().int().positive().describe("How many of the newest checkpoints stay").default(3),
  keepBest: z.strictObject({ metric, mode }).describe("Save and keep the checkpoint of the best evaluation").optional(),
  earlyStopping: z
    .strictObject({
      metric,
      mode,
      patience: z.number().int().positive().describe("Evaluations without improvement after which the run ends").default(3),
      minDelta: z.number().nonnegative().describe("Smaller changes are no improvement").default(0),
    })
    .describe("End the run when evaluations stop improving")
    .optional(),
  onNotFinite: z
    .enum(["stop", "skip"])
    .describe("What a loss or gradient norm that is not finite does: end the run, or be passed over when the step left the weights alone")
    .default("stop"),
  skipLimit: z.number().int().positive().describe("Skipped steps in a row that end the run all the same").default(10),
  watchedMetrics: z.array(z.string()).describe("Metrics that must be finite, where a step reports them").default(["loss", "gradientNorm"]),
});

/** What a caller gives; everything but `steps` has a default. */
export type LoopSettings = z.input<typeof loopSchema>;

/**
 * Settings that may change between the start of a run and its resume: they do not touch what a step computes. `steps` may, although
 * a schedule can depend on it: training longer is the usual reason to resume. A name covers the settings below it.
 */
export const changeableSettings: readonly string[] = [...Object.keys(loopSchema.shape), "loop", "logging", "name", "runs", "threads"];
