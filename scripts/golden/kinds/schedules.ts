// rl/schedules.json: multipliers of the base learning rate at every step, by transformers.
import { createSchedule, type ScheduleOptions } from "../../../src/optim/schedules.ts";
import type { Comparison } from "../compare.ts";
import { asIntegers, asNumber, asNumbers, asObject, asObjects, asText, type Fields, Malformed, shorten } from "../fields.ts";
import type { GoldenCase, GoldenKind } from "../kind.ts";

const kindOf: Readonly<Record<string, string>> = {
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

const optionOf: Readonly<Record<string, string>> = {
  num_warmup_steps: "warmupSteps",
  num_decay_steps: "decaySteps",
  num_cycles: "cycles",
  power: "power",
  timescale: "timescale",
  min_lr_rate: "minRatio",
  min_lr_ratio: "minRatio",
  warmup_lr_rate: "warmupStartRatio",
  warmup_type: "warmupShape",
  decay_type: "decayShape",
};

/** Absolute rates, which longwave has as ratios of the base rate. */
const ratioOf: Readonly<Record<string, string>> = { lr_end: "endRatio", min_lr: "minRatio" };

const tolerance = { relative: 1e-10 };
const file = "schedules.json";

export const kind: GoldenKind = {
  recognise(folder) {
    if (!folder.has(file)) return [];
    const cases = (): GoldenCase[] =>
      asObjects(asObject(folder.json(file), file).schedules, "schedules").map((fields, index) => {
        const name = asText(fields.schedule, `schedules[${index}].schedule`);
        return {
          kind: `rl/schedules/${name}`,
          name: shorten(`${index} ${name} ${JSON.stringify(fields.arguments)}`),
          run: (comparison) => runCase(fields, name, comparison),
        };
      });
    return [{ name: file, files: [file], cases }];
  },
};

function runCase(fields: Fields, name: string, comparison: Comparison): void {
  const baseRate = asNumber(fields.baseLearningRate, "baseLearningRate");
  const { options, totalSteps } = translate(kindOf[name], asObject(fields.arguments, "arguments"), baseRate);
  const schedule = createSchedule(options, { totalSteps });
  const multipliers = asNumbers(fields.multipliers, "multipliers");
  const steps = fields.steps === undefined ? Array.from(multipliers.data, (_, step) => step) : asIntegers(fields.steps, "steps");
  const own = steps.map((step) => schedule(step));
  comparison.numbers("multipliers", own, multipliers, tolerance);
  if (fields.learningRates === undefined) return;
  const rates = own.map((multiplier) => baseRate * multiplier);
  comparison.numbers("learningRates", rates, asNumbers(fields.learningRates, "learningRates"), tolerance);
}

function translate(kind: string, given: Fields, baseRate: number): { options: ScheduleOptions; totalSteps?: number } {
  const options: Record<string, unknown> = { kind };
  const steps = (name: string): number => asNumber(given[name] ?? 0, `arguments.${name}`);
  let totalSteps: number | undefined;
  for (const [name, value] of Object.entries(given)) {
    // An argument without a value has the reference's default, which is longwave's.
    if (value === null) continue;
    if (name === "num_training_steps") totalSteps = steps(name);
    else if (name === "num_stable_steps") totalSteps = steps(name) + steps("num_warmup_steps") + steps("num_decay_steps");
    else if (name in ratioOf) options[ratioOf[name]] = asNumber(value, `arguments.${name}`) / baseRate;
    else if (name in optionOf) options[optionOf[name]] = value;
    else throw new Malformed(`arguments: expected ${Object.keys(optionOf).join(", ")}, got "${name}"`);
  }
  return { options: options as ScheduleOptions, totalSteps };
}
