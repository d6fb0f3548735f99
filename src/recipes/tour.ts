// The tour: train, align and accelerate, each for real on two cores in about a minute, one run folder for each part below one folder.
// Training is the quickstart, shortened; alignment and acceleration work on stories260K, which the package ships.
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { storageError } from "../base/atomic.ts";
import { makeDirectories } from "../base/make-directories.ts";
import { parseOptions } from "../base/schema.ts";
import type { RunEvent } from "../engine/index.ts";
import type { Backend } from "../runtime/backend.ts";
import { tourAlignOptions } from "./align-stories.ts";
import { grpo } from "./grpo.ts";
import { pretrain } from "./pretrain.ts";
import { quickstartOptions } from "./quickstart.ts";
import { trainDrafter } from "./train-drafter.ts";
import { tourAccelerateOptions } from "./train-drafter-options.ts";

export const tourParts = ["train", "align", "accelerate"] as const;
export type TourPart = (typeof tourParts)[number];

export const tourSchema = z.strictObject({
  trainSteps: z.int().positive().default(200).describe("Steps of the quickstart's model"),
  fitSeconds: z.number().nonnegative().default(85).describe("Fewer of them where this machine would need longer; 0: never"),
  alignSteps: z.int().positive().default(50).describe("Steps of GRPO"),
  drafterSteps: z.int().positive().default(tourAccelerateOptions.steps).describe("Steps of the Medusa heads"),
  parts: z
    .array(z.enum(tourParts))
    .min(1)
    .default([...tourParts])
    .describe("Which parts to run, in this order; accelerate follows align on its model"),
  seed: z.int().nonnegative().default(0).describe("Seed of everything"),
  runs: z.string().min(1).default("runs").describe("Folder of all runs"),
});
export type TourOptions = z.input<typeof tourSchema>;

export interface TourContext {
  backend: Backend;
  signal?: AbortSignal;
  /** Called when a part begins, with the folder of the whole tour. */
  onPart?: (part: TourPart, folder: string) => void;
  /** Called when the run folder of a part exists. */
  onRun?: (part: TourPart, folder: string) => void;
}

/** The model of stories that the package ships (llama2.c format, MIT). */
export const storiesModel = fileURLToPath(new URL("../../assets/stories260k/stories260K.bin", import.meta.url));

/** Runs the parts one after another; the events are those of their recipes. @throws whatever they throw. */
export async function* tour(options: TourOptions, { backend, signal, onPart, onRun }: TourContext): AsyncGenerator<RunEvent> {
  const settings = parseOptions(tourSchema, options);
  const { seed, parts } = settings;
  const runs = makeFolder(settings.runs);
  const cache = join(settings.runs, ".cache");
  const context = (part: TourPart) => ({ backend, signal, onRun: ({ path }: { path: string }) => onRun?.(part, path) });
  let model = storiesModel;
  for (const part of tourParts.filter((name) => parts.includes(name))) {
    onPart?.(part, runs);
    if (part === "train") {
      const steps = settings.trainSteps;
      const half = Math.max(1, Math.round(steps / 2));
      const fitSeconds = settings.fitSeconds;
      const shortened = { steps, fitSeconds, evaluateEvery: half, sampleEvery: half, checkpointEvery: 0, evaluationBatches: 40 };
      yield* pretrain({ ...quickstartOptions, ...shortened, name: part, runs, cache, seed }, context(part));
    } else if (part === "align") {
      for await (const event of grpo(
        { ...tourAlignOptions, model: storiesModel, steps: settings.alignSteps, name: part, runs, seed },
        context(part),
      )) {
        if (event.kind === "run-end" && event.checkpoint !== undefined) model = event.checkpoint;
        yield event;
      }
    } else yield* trainDrafter({ ...tourAccelerateOptions, model, steps: settings.drafterSteps, name: part, runs, seed }, context(part));
  }
}

/** `<runs>/<time>-tour`, made now: a tour that cannot write should not find out a minute later. @throws CheckpointError. */
function makeFolder(root: string): string {
  const time = new Date().toISOString().slice(0, 19).replaceAll(/[-:]/g, "").replace("T", "-");
  for (let n = 1; ; n++) {
    const folder = join(root, `${time}-tour${n === 1 ? "" : `-${n}`}`);
    try {
      makeDirectories(root);
      mkdirSync(folder);
      return folder;
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== "EEXIST" || n > 1000) throw storageError(cause, folder);
    }
  }
}
