import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { UsageError } from "../base/errors.ts";
import { createSchedule, type ScheduleKind, type ScheduleOptions, scheduleSchema } from "./schedules.ts";

interface GoldenCase {
  schedule: string;
  baseLearningRate: number;
  arguments: Record<string, number | string | null>;
  multipliers: number[];
}
const golden = JSON.parse(readFileSync(new URL("../../test/golden/optim/schedules.json", import.meta.url), "utf8")) as {
  schedules: GoldenCase[];
};

const kinds: Record<string, ScheduleKind> = {
  constant: "constant",
  constantWarmup: "constant-with-warmup",
  linear: "linear",
  cosine: "cosine",
  cosineHardRestarts: "cosine-with-restarts",
  polynomial: "polynomial",
  inverseSqrt: "inverse-sqrt",
  cosineMinLr: "cosine-with-min-lr",
  cosineWarmupWithMinLr: "cosine-warmup-with-min-lr",
  wsd: "warmup-stable-decay",
};

/** The reference's arguments in longwave's names; absolute rates become ratios. */
function translate({ schedule, arguments: given, baseLearningRate }: GoldenCase): { options: ScheduleOptions; totalSteps?: number } {
  const options: Record<string, unknown> = { kind: kinds[schedule] };
  let totalSteps = given.num_training_steps as number | undefined;
  const rename: Record<string, string> = {
    num_warmup_steps: "warmupSteps",
    num_cycles: "cycles",
    power: "power",
    timescale: "timescale",
    min_lr_rate: "minRatio",
    warmup_lr_rate: "warmupStartRatio",
    num_decay_steps: "decaySteps",
    warmup_type: "warmupShape",
    decay_type: "decayShape",
    min_lr_ratio: "minRatio",
  };
  for (const [name, value] of Object.entries(given)) {
    if (value === null || name === "num_training_steps") continue;
    if (name === "num_stable_steps") totalSteps = Number(value) + Number(given.num_warmup_steps) + Number(given.num_decay_steps);
    else if (name === "lr_end") options.endRatio = Number(value) / baseLearningRate;
    else if (name === "min_lr") options.minRatio = Number(value) / baseLearningRate;
    else options[rename[name]] = value;
  }
  return { options: options as ScheduleOptions, totalSteps };
}

describe("against transformers", () => {
  test.each(golden.schedules.map((one) => [`${one.schedule} ${JSON.stringify(one.arguments)}`, one] as const))("%s", (_, one) => {
    const { options, totalSteps } = translate(one);
    const schedule = createSchedule(options, { totalSteps });
    one.multipliers.forEach((expected, step) => {
      expect(Math.abs(schedule(step) - expected), `step ${step}`).toBeLessThan(1e-10);
    });
  });

  test("covers every kind", () => {
    expect(new Set(golden.schedules.map((one) => kinds[one.schedule]))).toEqual(new Set(Object.values(kinds)));
    const declared = scheduleSchema.options.map((option) => option.shape.kind.value);
    expect(new Set(declared)).toEqual(new Set(Object.values(kinds)));
  });
});

test("a length below 1 is a fraction of the run, rounded up", () => {
  const asFraction = createSchedule({ kind: "linear", warmupSteps: 0.101 }, { totalSteps: 100 });
  const asSteps = createSchedule({ kind: "linear", warmupSteps: 11 }, { totalSteps: 100 });
  for (let step = 0; step < 105; step++) expect(asFraction(step)).toBe(asSteps(step));
});

test("all kinds start their plateau at the base rate and stay within [0, 1] with their defaults", () => {
  for (const kind of Object.values(kinds)) {
    const schedule = createSchedule({ kind } as ScheduleOptions, { totalSteps: 5000 });
    const values = Array.from({ length: 5001 }, (_, step) => schedule(step));
    expect(Math.max(...values), kind).toBeCloseTo(1, 5);
    expect(Math.min(...values), kind).toBeGreaterThanOrEqual(0);
  }
});

test("every option is documented and defaulted", () => {
  const described = z.toJSONSchema(scheduleSchema, { io: "input" }) as {
    oneOf: { description?: string; required: string[]; properties: Record<string, { description?: string }> }[];
  };
  for (const one of described.oneOf) {
    expect(one.description).toBeTruthy();
    expect(one.required).toEqual(["kind"]);
    for (const [name, property] of Object.entries(one.properties)) if (name !== "kind") expect(property.description, name).toBeTruthy();
  }
});

test("mistakes are named", () => {
  expect(() => createSchedule({ kind: "cosine" })).toThrow(UsageError);
  expect(() => createSchedule({ kind: "cosine" })).toThrow(/schedule "cosine": expected the number of steps of the run, got undefined/);
  expect(() => createSchedule({ kind: "warmup-stable-decay", warmupSteps: 8, decaySteps: 8 }, { totalSteps: 10 })).toThrow(
    /at most 10 steps/,
  );
  expect(() => createSchedule({ kind: "linear", warmup: 3 } as ScheduleOptions)).toThrow(/option `warmup`/);
  expect(() => createSchedule({ kind: "cosin" } as unknown as ScheduleOptions)).toThrow(
    /expected kind to be one of constant, .*got "cosin"/,
  );
  expect(createSchedule({ kind: "constant-with-warmup", warmupSteps: 10 })(5)).toBe(0.5);
});
