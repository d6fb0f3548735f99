// Learning-rate schedules: pure functions from a step to the multiplier of the base rate.
// Names and formulas follow the schedules of Hugging Face's transformers, so that a recipe written for them gives the same rates.
// Deliberately different: floors and ends are ratios of the base rate, and a warm-up or decay below 1 is a fraction of the run.
import { z } from "zod";
import { nearest, UsageError } from "../base/errors.ts";
import { parseOptions, show } from "../base/schema.ts";

/** Multiplier of the base learning rate for the update taken after `step` updates (0 for the first one). */
export type Schedule = (step: number) => number;

const length = (what: string) => z.number().nonnegative().describe(`${what}, in steps; a value below 1 is a fraction of the run`);
const warmupSteps = length("Rise from 0 to the base rate").default(0);
const ratio = (what: string) => z.number().min(0).max(1).describe(`${what}, as a ratio of the base rate`);
const cycles = (what: string) => z.number().positive().describe(what);
const shape = z.enum(["linear", "cosine", "1-sqrt"]);

const schemas = [
  z.strictObject({ kind: z.literal("constant") }).describe("The base rate throughout"),
  z
    .strictObject({ kind: z.literal("constant-with-warmup"), warmupSteps: warmupSteps.default(0.03) })
    .describe("Linear warm-up, then the base rate"),
  z.strictObject({ kind: z.literal("linear"), warmupSteps }).describe("Linear warm-up, then a straight line to 0 at the last step"),
  z
    .strictObject({
      kind: z.literal("cosine"),
      warmupSteps,
      cycles: cycles("Waves between warm-up and end; one half is a single fall to 0").default(0.5),
    })
    .describe("Linear warm-up, then a cosine to 0 (Loshchilov & Hutter 2017, without restarts)"),
  z
    .strictObject({ kind: z.literal("cosine-with-restarts"), warmupSteps, cycles: cycles("Number of falls from 1 to 0").default(1) })
    .describe("Linear warm-up, then several cosine falls, each from the base rate (SGDR, Loshchilov & Hutter 2017)"),
  z
    .strictObject({
      kind: z.literal("cosine-with-min-lr"),
      warmupSteps,
      cycles: cycles("Waves between warm-up and end; one half is a single fall").default(0.5),
      minRatio: ratio("Lowest rate").default(0.1),
    })
    .describe("Linear warm-up, then a cosine to a tenth of the base rate (Brown et al. 2020, Hoffmann et al. 2022)"),
  z
    .strictObject({
      kind: z.literal("cosine-warmup-with-min-lr"),
      warmupSteps,
      cycles: cycles("Waves between warm-up and end; one half is a single fall").default(0.5),
      minRatio: ratio("Lowest rate").default(0.1),
      warmupStartRatio: ratio("Rate of the very first step; absent: 1 / warmupSteps").optional(),
    })
    .describe("As cosine-with-min-lr, one step ahead: no step is taken at rate 0, and the floor is reached on the last step"),
  z
    .strictObject({
      kind: z.literal("polynomial"),
      warmupSteps,
      power: z.number().positive().describe("Exponent; 1 is a straight line").default(1),
      endRatio: ratio("Rate at the end").default(0),
    })
    .describe("Linear warm-up, then (1 - progress)^power down to the end rate (BERT, Devlin et al. 2019)"),
  z
    .strictObject({
      kind: z.literal("inverse-sqrt"),
      warmupSteps: warmupSteps.default(4000),
      timescale: z.number().positive().describe("Steps over which the rate falls by sqrt(2); absent: warmupSteps, or 10,000").optional(),
    })
    .describe("Linear warm-up, then 1 / sqrt(step) (Vaswani et al. 2017)"),
  z
    .strictObject({
      kind: z.literal("warmup-stable-decay"),
      warmupSteps: warmupSteps.default(0.01),
      decaySteps: length("Fall at the end of the run").default(0.2),
      warmupShape: shape.describe("Shape of the rise").default("linear"),
      decayShape: shape.describe("Shape of the fall").default("1-sqrt"),
      cycles: cycles("Waves of a cosine fall; one half is a single fall").default(0.5),
      minRatio: ratio("Rate at the very start and the very end").default(0),
    })
    .describe("Warm-up, plateau, fall (Hu et al. 2024, MiniCPM; shape and length of the fall: Hägele et al. 2024)"),
] as const;

/** Every schedule with its options, discriminated by `kind`. */
export const scheduleSchema = z.discriminatedUnion("kind", schemas);

/** What a configuration holds; options left out have their defaults. */
export type ScheduleOptions = z.input<typeof scheduleSchema>;
export type ScheduleKind = ScheduleOptions["kind"];

/**
 * The schedule of a run.
 * @param run.totalSteps Updates in the whole run. Needed by every kind but `constant`, and `constant-with-warmup` and
 * `inverse-sqrt` when their warm-up is a number of steps. Cosines go on periodically beyond it; all other kinds keep their last value.
 * @throws UsageError when the length of the run is needed and missing, or too short for warm-up and decay.
 */
export function createSchedule(options: ScheduleOptions, run: { totalSteps?: number } = {}): Schedule {
  const parsed = parse(options);
  const where = `schedule "${parsed.kind}"`;
  if (parsed.kind === "constant") return () => 1;

  const total = (): number => {
    const { totalSteps } = run;
    if (totalSteps !== undefined && Number.isSafeInteger(totalSteps) && totalSteps > 0) return totalSteps;
    throw new UsageError(`${where}: expected the number of steps of the run, got ${totalSteps}`, {
      hint: "Give the run a fixed number of steps, or choose the kind constant.",
    });
  };
  const toSteps = (value: number): number => (value > 0 && value < 1 ? Math.ceil(value * total()) : value);
  const warmup = toSteps(parsed.warmupSteps);
  const rise = (step: number): number => step / Math.max(1, warmup);

  if (parsed.kind === "constant-with-warmup") return (step) => (step < warmup ? rise(step) : 1);
  if (parsed.kind === "inverse-sqrt") {
    const timescale = parsed.timescale ?? (warmup || 10_000);
    return (step) => (step < warmup ? rise(step) : 1 / Math.sqrt((step - warmup + timescale) / timescale));
  }

  const last = total();
  const span = Math.max(1, last - warmup);
  switch (parsed.kind) {
    case "linear":
      return (step) => (step < warmup ? rise(step) : Math.max(0, (last - step) / span));
    case "cosine":
      return (step) => (step < warmup ? rise(step) : cosine(parsed.cycles * ((step - warmup) / span)));
    case "cosine-with-restarts":
      return (step) => {
        if (step < warmup) return rise(step);
        return step >= last ? 0 : cosine(((parsed.cycles * ((step - warmup) / span)) % 1) / 2);
      };
    case "cosine-with-min-lr":
      return (step) => (step < warmup ? rise(step) : above(parsed.minRatio, cosine(parsed.cycles * ((step - warmup) / span))));
    case "cosine-warmup-with-min-lr": {
      const start = parsed.warmupStartRatio;
      return (step) => {
        if (step >= warmup) return above(parsed.minRatio, cosine(parsed.cycles * ((step - warmup + 1) / span)));
        return start === undefined ? rise(step + 1) : above(start, step / Math.max(1, warmup - 1));
      };
    }
    case "polynomial":
      return (step) => {
        if (step < warmup) return rise(step);
        return above(parsed.endRatio, step > last ? 0 : (1 - (step - warmup) / span) ** parsed.power);
      };
    case "warmup-stable-decay": {
      const decay = toSteps(parsed.decaySteps);
      if (warmup + decay > last)
        throw new UsageError(`${where}: expected warmupSteps + decaySteps of at most ${last} steps, got ${warmup} + ${decay}`, {
          hint: "Lengthen the run, or give both as fractions of it.",
        });
      const falling = fall[parsed.decayShape];
      return (step) => {
        if (step < warmup) return above(parsed.minRatio, risen[parsed.warmupShape](rise(step)));
        if (step < last - decay) return 1;
        return above(parsed.minRatio, step < last ? falling((step - (last - decay)) / Math.max(1, decay), parsed.cycles) : 0);
      };
    }
  }
}

/** Through the schema of the one kind, so that a mistake is told in that kind's words. */
function parse(options: ScheduleOptions): z.output<typeof scheduleSchema> {
  const schema = schemas.find((one) => one.shape.kind.value === options.kind);
  if (schema) return parseOptions(schema as z.ZodObject, options) as z.output<typeof scheduleSchema>;
  const kinds = schemas.map((one) => one.shape.kind.value);
  const guess = nearest(String(options.kind), kinds);
  throw new UsageError(`schedule: expected kind to be one of ${kinds.join(", ")}, got ${show(options.kind)}`, {
    hint: guess === undefined ? undefined : `Did you mean "${guess}"?`,
  });
}

/** 1 at whole numbers of waves, 0 at the halves between them. */
const cosine = (waves: number): number => Math.max(0, 0.5 * (1 + Math.cos(2 * Math.PI * waves)));

/** Squeezes a multiplier from [0, 1] into [floor, 1]. */
const above = (floor: number, multiplier: number): number => multiplier * (1 - floor) + floor;

type Shape = z.infer<typeof shape>;

const risen: Record<Shape, (progress: number) => number> = {
  linear: (progress) => progress,
  cosine: (progress) => 0.5 * (1 - Math.cos(Math.PI * progress)),
  "1-sqrt": (progress) => 1 - Math.sqrt(1 - progress),
};

const fall: Record<Shape, (progress: number, cycles: number) => number> = {
  linear: (progress) => 1 - progress,
  cosine: (progress, waves) => cosine(waves * progress),
  "1-sqrt": (progress) => 1 - Math.sqrt(progress),
};
