// The commands that exist, in the order in which help lists them. A command's module is imported when it is chosen.
// To add one: write commands/<name>.ts with defineCommand, then one entry here.
import type { Command } from "./command.ts";

export interface CommandEntry {
  readonly name: string;
  /** Repeated here so that the overview needs no import; a test compares it with the command's own. */
  readonly summary: string;
  load(): Promise<Command>;
}

export const commands: readonly CommandEntry[] = [
  {
    name: "tour",
    summary: "Train, align and accelerate in four minutes, with a page to look at",
    load: async () => (await import("./commands/tour.ts")).tour,
  },
  {
    name: "quickstart",
    summary: "Train a small language model on real text in two minutes",
    load: async () => (await import("./commands/pretrain.ts")).quickstart,
  },
  {
    name: "pretrain",
    summary: "Train a language model on text",
    load: async () => (await import("./commands/pretrain.ts")).pretrain,
  },
  {
    name: "grpo",
    summary: "Align a model with reward functions",
    load: async () => (await import("./commands/grpo.ts")).grpo,
  },
  {
    name: "rl",
    summary: "Learn from reward in an environment",
    load: async () => (await import("./commands/rl.ts")).rl,
  },
  {
    name: "rl evaluate",
    summary: "Measure the return of a trained policy",
    load: async () => (await import("./commands/rl-evaluate.ts")).rlEvaluate,
  },
  {
    name: "rl watch",
    summary: "Draw episodes of a trained policy as one self-contained HTML page",
    load: async () => (await import("./commands/rl-watch.ts")).rlWatch,
  },
  {
    name: "rl export",
    summary: "Write a trained policy as a plain ONNX file",
    load: async () => (await import("./commands/rl-export.ts")).rlExport,
  },
  {
    name: "rl zoo",
    summary: "List tuned settings, or reproduce their published returns",
    load: async () => (await import("./commands/rl-zoo.ts")).rlZoo,
  },
  {
    name: "generate",
    summary: "Generate text from a model",
    load: async () => (await import("./commands/generate.ts")).generate,
  },
  {
    name: "chat",
    summary: "Talk with a model in the terminal",
    load: async () => (await import("./commands/chat.ts")).chat,
  },
  {
    name: "convert",
    summary: "Write a model in another format",
    load: async () => (await import("./commands/convert.ts")).convert,
  },
  {
    name: "quantize",
    summary: "Write a model with matrices of 8, 5 or 4 bits, and measure what that costs",
    load: async () => (await import("./commands/quantize.ts")).quantize,
  },
  {
    name: "bench-decode",
    summary: "Measure which drafts make a model faster, by kind of work",
    load: async () => (await import("./commands/bench-decode.ts")).benchDecode,
  },
  {
    name: "train-drafter",
    summary: "Train heads, or a small model, that make a model generate faster",
    load: async () => (await import("./commands/train-drafter.ts")).trainDrafter,
  },
  {
    name: "evaluate",
    summary: "Measure a model's loss on text",
    load: async () => (await import("./commands/evaluate.ts")).evaluate,
  },
  {
    name: "report",
    summary: "Draw a run as one self-contained HTML page",
    load: async () => (await import("./commands/report.ts")).report,
  },
  {
    name: "doctor",
    summary: "Check the installation and measure this machine",
    load: async () => (await import("./commands/doctor.ts")).doctor,
  },
  {
    name: "inspect",
    summary: "Show what a model file holds",
    load: async () => (await import("./commands/inspect.ts")).inspect,
  },
  {
    name: "tokenizer train",
    summary: "Train a byte-level BPE tokenizer",
    load: async () => (await import("./commands/tokenizer-train.ts")).tokenizerTrain,
  },
  {
    name: "tokenizer encode",
    summary: "Turn text into token ids",
    load: async () => (await import("./commands/tokenizer-encode.ts")).tokenizerEncode,
  },
  {
    name: "tokenizer decode",
    summary: "Turn token ids into text",
    load: async () => (await import("./commands/tokenizer-decode.ts")).tokenizerDecode,
  },
];
