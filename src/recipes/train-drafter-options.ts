// Settings of drafter training: one schema, from which flags, help and validation come.
import { z } from "zod";
import { loopSchema } from "../engine/index.ts";
import { medusaSchema } from "../models/heads/medusa.ts";
import { medusaTrainingSchema } from "../train/medusa.ts";
import { weightKinds } from "./text-model/load-model.ts";
import { savedSettingsOf } from "./training-run.ts";

const { logEvery, keepLast, onNotFinite, checkpointSeconds } = loopSchema.shape;

/** Sizes of a draft model; what is left out follows as in any decoder. */
export const draftSchema = z.strictObject({
  vocabSize: z.int().min(16).default(8192).describe("Tokens that it knows, the most frequent of the texts; others are never drafted"),
  width: z.int().positive().default(192).describe("Width of the residual stream"),
  layers: z.int().positive().default(4).describe("Number of blocks"),
  heads: z.int().positive().default(6).describe("Query heads"),
  kvHeads: z.int().positive().default(2).describe("Key and value heads"),
  mlpWidth: z.int().positive().optional().describe("Inner width of the gated MLP. Default: 8/3 x width rounded up to 32"),
  embedding: z
    .enum(["target", "random"])
    .default("target")
    .describe("Where token embeddings start: the principal axes of the model's own, or random ones"),
  layersFrom: z
    .array(z.int().nonnegative())
    .default([])
    .describe(
      "Start from these layers of the model, its width and heads: larger, but good after few texts. The other sizes then do not count",
    ),
});

export const trainDrafterSchema = z.strictObject({
  model: z
    .string()
    .min(1)
    .describe("The model to draft for: whatever `generate` takes; Medusa heads need a folder, a run or a llama2.c file"),
  kind: z
    .enum(["medusa", "draft"])
    .default("medusa")
    .describe("medusa: heads on the model's hidden states, trained while the model is frozen; draft: a small model of its own"),
  tokenizer: z.string().optional().describe("tokenizer.json or its folder. Default: beside the model"),
  medusa: medusaSchema.prefault({}).describe("Medusa heads"),
  draft: draftSchema.prefault({}).describe("Draft model"),
  weights: z.enum(weightKinds).default("f32").describe("Weights that the model writes its texts with (draft)"),
  prompts: z
    .array(z.string())
    .default([])
    .describe("Files of prompts, .jsonl or one a line, that the model answers (draft). Default: it writes the questions itself"),
  field: z.string().min(1).default("prompt").describe("Field of a .jsonl file that holds the prompt"),
  chat: z.boolean().optional().describe("Prompts are a user's turns (draft). Default: where the model has a chat template"),
  texts: z
    .string()
    .min(1)
    .optional()
    .describe("Folder that texts are written to and taken from (draft). Default: texts/ in the run's folder"),
  writeBatch: z.int().positive().max(256).default(32).describe("Texts written at a time (draft)"),
  top: z.int().min(1).max(64).default(8).describe("Most probable tokens kept with each token of the texts, for distillation (draft)"),
  distillation: z
    .number()
    .min(0)
    .max(1)
    .default(0.5)
    .describe("Weight of what the model thought likely against what it said (draft): 0 learns from tokens alone"),
  promptWeight: z
    .number()
    .min(0)
    .max(1)
    .default(0.1)
    .describe("Weight of the prompts' tokens beside those of answers (draft); 0: prompts are read, not learnt"),
  ...medusaTrainingSchema.shape,
  tokens: z.int().positive().default(200_000).describe("Tokens of the model's own texts to train on"),
  heldOutTokens: z.int().positive().default(20_000).describe("Tokens of further texts, for evaluation and calibration of the tree"),
  textLength: z.int().min(8).optional().describe("Tokens of a text. Default: the model's context length, at most 256"),
  openingTokens: z
    .int()
    .positive()
    .optional()
    .describe("Longest opening of a text, drawn at temperature 1 so that texts differ. Default: 32, of a question in a conversation 64"),
  temperature: z
    .number()
    .min(0)
    .default(0.3)
    .describe("Temperature of the texts after their openings (Medusa: 0.3); the lower, the more the heads learn for greedy decoding"),
  heldOutTemperature: z.number().min(0).default(0).describe("The same of the texts that the tree is calibrated on: how it will be decoded"),
  maxTreeNodes: z.int().min(1).max(64).default(24).describe("Drafted tokens of a step at most; how many is decided by the measured cost"),
  measurePrompts: z.int().nonnegative().default(8).describe("Prompts to decode with and without the drafter at the end; 0: none"),
  measureRounds: z.int().positive().default(3).describe("Times that each of them is decoded either way; medians count"),
  measureTokens: z.int().positive().default(200).describe("Tokens to decode for each of them"),
  seed: z.int().nonnegative().default(0).describe("Seed of texts and data order"),
  steps: z.int().positive().default(500).describe("Steps of the whole run, those before a resume included"),
  logEvery,
  evaluateEvery: z.int().nonnegative().default(100).describe("Evaluate every so many steps and after the last one; 0: never"),
  sampleEvery: z.int().nonnegative().default(0).describe("Show what the draft model itself writes every so many steps (draft); 0: never"),
  checkpointEvery: z.int().nonnegative().default(0).describe("Save every so many steps; at the end and when interrupted always"),
  checkpointSeconds,
  keepLast,
  onNotFinite,
  runs: z.string().min(1).default("runs").describe("Folder of all runs"),
  name: z.string().default("train-drafter").describe("Name of the run, part of its folder's name"),
  resume: z.string().min(1).optional().describe("Go on with this run folder, with the settings that it was started with"),
});

export type TrainDrafterOptions = z.input<typeof trainDrafterSchema>;
export type TrainDrafterSettings = z.output<typeof trainDrafterSchema>;

/** The settings that a run was started with, to go on with them. @throws CheckpointError when there is no run at `path`. */
export const savedDrafterSettings = (path: string): Partial<TrainDrafterOptions> => savedSettingsOf(trainDrafterSchema, path, "drafter");

/**
 * The tour's part on acceleration: Medusa heads for the small model of stories, half a minute in all on two cores. Texts are greedy, as
 * they will be decoded. A second layer and a high learning rate pay for so small a model.
 */
export const tourAccelerateOptions = {
  kind: "medusa",
  name: "accelerate",
  medusa: { heads: 4, layers: 2 },
  tokens: 150_000,
  heldOutTokens: 12_000,
  temperature: 0,
  batchSize: 16,
  sequenceLength: 128,
  steps: 300,
  learningRate: 2e-2,
  logEvery: 10,
  evaluateEvery: 100,
  maxTreeNodes: 12,
  measurePrompts: 8,
  measureTokens: 200,
  measureRounds: 7,
} as const satisfies Omit<TrainDrafterOptions, "model">;
