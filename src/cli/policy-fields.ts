// Fields of the commands that use a trained policy: the run, and which of its checkpoints.
import { z } from "zod";

export const policyFields = {
  run: z.string().min(1).describe("Run folder, one of its checkpoints, or the folder of a saved policy."),
  checkpoint: z
    .string()
    .min(1)
    .default("best")
    .describe("Which checkpoint of a run: best (the latest where none was kept as the best), latest, an environment step, or a folder.")
    .meta({ placeholder: "which" }),
} as const;
