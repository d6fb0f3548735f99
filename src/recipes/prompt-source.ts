// Prompts from texts, records, JSONL and text files; what is kept for evaluation; beginnings of stories for the stories260K model.
import { createHash } from "node:crypto";
import { DataError, UsageError } from "../base/errors.ts";
import { readJsonLines, readText } from "../data/index.ts";
import type { Prompt } from "../rl/index.ts";
import { Random } from "../runtime/rng.ts";
import type { Tokenizer } from "../text/index.ts";
import type { PromptRecord } from "./grpo-options.ts";

const maxPrompts = 1_000_000;

/** @throws DataError for a file that cannot be read or holds no prompts. */
export async function readPrompts(files: readonly string[], field: string): Promise<PromptRecord[]> {
  const records: PromptRecord[] = [];
  for (const file of files) {
    const before = records.length;
    if (/\.jsonl?$/.test(file))
      for await (const { value, line } of readJsonLines(file)) records.push(recordOf(value, field, `${file}:${line}`));
    else {
      let text = "";
      for await (const piece of readText(file)) text += piece;
      for (const line of text.split(/\r?\n/)) if (line.trim() !== "") records.push({ prompt: line });
    }
    if (records.length === before) throw new DataError(`${file}: expected prompts, got none`);
    if (records.length > maxPrompts) throw new DataError(`${file}: expected at most ${maxPrompts} prompts in all, got more`);
  }
  return records;
}

function recordOf(value: unknown, field: string, place: string): PromptRecord {
  const record = typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : {};
  const { [field]: prompt, ...columns } = record;
  if (typeof prompt !== "string" || prompt === "")
    throw new DataError(
      `${place}: expected a text in field "${field}", got fields ${Object.keys(record).slice(0, 10).join(", ") || "none"}`,
      {
        hint: "Name the field that holds the prompt with --field.",
      },
    );
  return { ...columns, prompt };
}

/** Prompts as token ids, with what the tokenizer puts in front of a text. */
export function encodePrompts(records: readonly PromptRecord[], tokenizer: Tokenizer): Prompt[] {
  const { bos, eos } = tokenizer.specialIds;
  return records.map(({ prompt, ...columns }) => {
    const ids = tokenizer.encode(prompt);
    const begin = bos ?? eos;
    return { text: prompt, ids: ids.length === 0 && begin !== undefined ? Int32Array.of(begin) : ids, columns };
  });
}

/** Training and evaluation prompts: a share, chosen by the seed, at least one and never all. @throws UsageError for one prompt only. */
export function splitPrompts<T>(prompts: readonly T[], share: number, seed: number): { train: T[]; heldOut: T[] } {
  if (share === 0) return { train: [...prompts], heldOut: [] };
  const count = Math.max(1, Math.round(share * prompts.length));
  if (count >= prompts.length)
    throw new UsageError(`prompts: expected at least two for training and evaluation, got ${prompts.length}`, {
      hint: "Give more prompts, or set validation to 0.",
    });
  const order = new Random(seed, { stream: "held-out prompts" }).permutation(prompts.length);
  const held = new Set(order.subarray(0, count));
  return { train: prompts.filter((_, i) => !held.has(i)), heldOut: prompts.filter((_, i) => held.has(i)) };
}

/** Tells whether the prompts of a resumed run are those that it was started with. */
export const fingerprintOf = (prompts: readonly Prompt[]): string =>
  createHash("sha256")
    .update(JSON.stringify(prompts.map(({ text, columns }) => [text, columns])))
    .digest("hex")
    .slice(0, 16);

const names = ["Lily", "Tom", "Ben", "Mia", "Sam", "Anna", "Max", "Sue", "Tim", "Amy", "Jack", "Lucy"];
const beginnings = [
  (name: string) => `Once upon a time, there was a child named ${name}.`,
  (name: string) => `One day, ${name} went to the park.`,
  (name: string) => `${name} was playing in the garden.`,
  (name: string) => `${name} had a big red ball.`,
  (name: string) => `It was a sunny day and ${name} was happy.`,
  (name: string) => `${name} and Mom went for a walk.`,
  (name: string) => `There was a little friend of ${name}.`,
  (name: string) => `${name} wanted to play outside.`,
];

/** Beginnings of stories for models that were trained on TinyStories (Eldan & Li 2023). */
export const storyPrompts: readonly PromptRecord[] = beginnings.flatMap((begin) => names.map((name) => ({ prompt: begin(name) })));
