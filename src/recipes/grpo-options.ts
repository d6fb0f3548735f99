// Settings of aligning a model with reward functions: one schema, from which flags, help and validation come.
import { z } from "zod";
import { loopSchema } from "../engine/index.ts";
import { groupPolicySchema, type RewardInput } from "../rl/index.ts";
import { savedSettingsOf } from "./training-run.ts";

const { logEvery, keepLast, onNotFinite, checkpointSeconds, earlyStopping } = loopSchema.shape;

export const grpoSchema = z.strictObject({
  model: z.string().min(1).optional().describe("Checkpoint folder, run folder (its latest checkpoint) or llama2.c .bin file to start from"),
  tokenizer: z.string().optional().describe("tokenizer.json or its folder. Default: beside the model"),
  prompts: z.array(z.string()).default([]).describe("Prompts as texts. Default with the stories260K model: beginnings of stories"),
  data: z
    .array(z.string())
    .default([])
    .describe("Files of prompts: JSONL, whose other fields reward functions get by name, or text with a prompt on each line"),
  field: z.string().default("prompt").describe("Field of a JSONL record that holds the prompt"),
  heldOut: z.array(z.string()).default([]).describe("Files of prompts for evaluation. Default: a share of the prompts"),
  validation: z.number().min(0).lt(1).default(0.2).describe("Share of the prompts that is kept for evaluation, at least one; 0: none"),
  rewards: z
    .array(z.string())
    .default([])
    .describe("Reward functions: names such as contains:cat or ends-with-sentence, or .js and .mjs modules that export functions"),
  endTokens: z.array(z.int().nonnegative()).optional().describe("Ids that end a completion. Default: those of the tokenizer"),
  ...groupPolicySchema.shape,
  seed: z.int().nonnegative().default(0).describe("Seed of prompts and sampling"),
  steps: z.int().positive().default(100).describe("Steps of the whole run, those before a resume included; one step is one rollout"),
  logEvery,
  evaluateEvery: z
    .int()
    .nonnegative()
    .default(20)
    .describe("Evaluate on held-out prompts before the first step, every so many and after the last; 0: never"),
  sampleEvery: z
    .int()
    .nonnegative()
    .default(20)
    .describe("Tell completions, rewards and advantages of the first step, of every so many-th and of the last; 0: never"),
  checkpointEvery: z.int().nonnegative().default(50).describe("Save every so many steps; at the end and when interrupted always"),
  checkpointSeconds,
  keepLast,
  keepBest: z.boolean().default(false).describe("Also keep the checkpoint with the highest mean reward on held-out prompts"),
  earlyStopping,
  onNotFinite,
  runs: z.string().min(1).default("runs").describe("Folder of all runs"),
  name: z.string().default("grpo").describe("Name of the run, part of its folder's name"),
  resume: z.string().min(1).optional().describe("Go on with this run folder (or from one of its checkpoints), with its configuration"),
});

export type GrpoSettings = z.output<typeof grpoSchema>;

/** A prompt with further columns, which reward functions get by name. */
export interface PromptRecord {
  readonly prompt: string;
  readonly [column: string]: unknown;
}

/** As the schema has it; in a program, prompts may be records and rewards functions. */
export type GrpoOptions = Omit<z.input<typeof grpoSchema>, "prompts" | "rewards"> & {
  prompts?: readonly (string | PromptRecord)[];
  rewards?: readonly (string | RewardInput)[];
};

/**
 * The settings that a run was started with, to go on with them: `grpo({ ...savedGrpoSettings(path), resume: path })`. Prompts given as
 * records and rewards given as functions are not among them: give them again.
 * @throws CheckpointError when there is no run at `path`.
 */
export const savedGrpoSettings = (path: string): GrpoOptions => savedSettingsOf(grpoSchema, path, "alignment");
