// `longwave bench-decode <model>`: which drafter pays for which kind of work, as a table, bars and a JSON file.
import { z } from "zod";
import { writeFileAtomic } from "../../base/atomic.ts";
import { UsageError } from "../../base/errors.ts";
import type { BenchDecodeReport, BenchRow } from "../../recipes/bench-decode/bench-decode.ts";
import { benchPrompts, readBenchPrompts } from "../../recipes/bench-decode/tasks.ts";
import { type CommandContext, defineCommand } from "../command.ts";
import { formatDuration } from "../render/format.ts";
import { createLiveLine } from "../render/live-line.ts";
import { table } from "../render/table.ts";
import { modelFields, openTextModel } from "../text-model-flags.ts";
import { verifierOf } from "../verifiers.ts";

const taskNames = [...new Set(benchPrompts.map(({ task }) => task))];

export const benchDecode = defineCommand({
  name: "bench-decode",
  summary: "Measure which drafts make a model faster, by kind of work",
  description: [
    `Every text is decoded plainly and with each drafter, in turns. Texts: three prompts each of five kinds of work (${taskNames.join(", ")}), or a`,
    'JSON-lines file of your own: {"task": "…", "prompt": "…"} a line. It begins by measuring v(n), the time of a call on n new tokens over that on one,',
    "for ten n up to 32: about 200 calls, which take as long as writing 400 to 700 tokens. Then come prompts × (drafters + 1) × rounds texts of",
    "--max-new-tokens at most; how long that takes is told before and meanwhile. Run it on a quiet machine.",
  ].join("\n"),
  schema: z.object({
    ...modelFields,
    drafters: z
      .array(z.string())
      .default(["lookup", "suffix"])
      .describe("What to compare: lookup, suffix, draft:<model>, a folder of heads."),
    verifier: z
      .enum(["lossless", "rejection", "block", "typical", "relaxed"])
      .default("lossless")
      .describe("How drafts are verified; typical and relaxed change the text. rejection and block need --temperature."),
    prompts: z.string().optional().describe("JSON-lines file of prompts. Default: the built-in ones."),
    tasks: z
      .array(z.string())
      .default([])
      .describe(`Only these kinds of work: ${taskNames.join(", ")}, or those of --prompts.`),
    maxNewTokens: z.int().min(2).default(128).describe("Tokens of a text at most.").meta({ short: "n" }),
    rounds: z.int().min(1).default(3).describe("How often each text is decoded with each drafter; speed-ups are medians of rounds."),
    temperature: z.number().min(0).default(0).describe("0: the most probable tokens."),
    raw: z.boolean().default(false).describe("Give prompts as they are, not as a question in the model's chat template."),
    ignoreEos: z.boolean().default(false).describe("Go on after the end of an answer."),
    output: z.string().optional().describe("Write the numbers as JSON to this file."),
  }),
  positionals: ["model"],
  hasJson: true,
  examples: [
    { command: "bench-decode model.gguf --drafters lookup --drafters draft:small.gguf", note: "lookup beside a draft model" },
    { command: "bench-decode model/ --prompts tasks.jsonl --output speeds.json", note: "own prompts, numbers to a file" },
  ],
  run: async (options, context) => {
    const { benchDecode: run } = await import("../../recipes/bench-decode/bench-decode.ts");
    const { openDrafterSpec } = await import("../../recipes/text-model/drafter-spec.ts");
    const all = options.prompts === undefined ? benchPrompts : readBenchPrompts(options.prompts);
    const names = [...new Set(all.map(({ task }) => task))];
    const unknown = options.tasks.find((task) => !names.includes(task));
    if (unknown !== undefined) throw new UsageError(`tasks: expected ${names.join(", ")}, got ${unknown}`);
    const prompts = all.filter(({ task }) => options.tasks.length === 0 || options.tasks.includes(task));
    using model = await openTextModel({ ...options, speculate: "none", exact: false }, context, { prepare: false });
    const useTemplate = !options.raw && model.loaded.chatTemplate !== undefined;
    const texts = prompts.map(({ task, prompt }) => ({
      task,
      ids: useTemplate ? model.chatIds([{ role: "user", content: prompt }]) : model.encode(prompt),
    }));
    const longest = Math.max(...texts.map(({ ids }) => ids.length));
    if (longest + options.maxNewTokens > model.runner.capacity)
      throw new UsageError(`prompts: expected at most ${model.runner.capacity - options.maxNewTokens} tokens, got ${longest}`, {
        hint: "Give a larger --context or a smaller --max-new-tokens.",
      });
    const { backend } = model;
    const target = { backend, model: model.loaded.model, tokenizer: model.tokenizer, capacity: model.runner.capacity };
    const sampling = options.temperature > 0 ? { temperature: options.temperature } : { doSample: false };
    const verifier = await verifierOf(options.verifier, options.temperature === 0);
    const entries = [];
    const line = createLiveLine(context.stderr);
    try {
      for (const name of options.drafters) {
        const draw = options.verifier === "rejection" || options.verifier === "block";
        const drafter = await openDrafterSpec(name, target, { draw, offline: options.offline, signal: context.signal });
        if (drafter) entries.push({ name, drafter, ...(verifier ? { verifier } : {}) });
      }
      const { signal } = context;
      const { maxNewTokens, rounds } = options;
      const eosTokenIds = options.ignoreEos ? [] : model.loaded.eosTokenIds;
      const onCost = (done: number, total: number): void => line.update(() => `v(n), what a call on n tokens costs: ${done}/${total}`);
      const bench = run({ runner: model.runner, texts, entries, maxNewTokens, rounds, sampling, eosTokenIds, signal, onCost });
      const ways = `plain and with ${entries.length} drafter${entries.length === 1 ? "" : "s"}`;
      context.stderr.write(`${texts.length} prompts, ${ways}, ${rounds} round${rounds === 1 ? "" : "s"}\n`);
      let isTold = false;
      let step = await bench.next();
      while (!step.done) {
        const { done, total, label, remainingSeconds } = step.value;
        if (remainingSeconds !== undefined && !isTold) {
          line.clear();
          context.stderr.write(`${total} texts to decode, about ${formatDuration(remainingSeconds)} at most\n`);
          isTold = true;
        }
        line.update(() => `${done}/${total}  ${label}${remainingSeconds === undefined ? "" : `  ETA ${formatDuration(remainingSeconds)}`}`);
        step = await bench.next();
      }
      line.clear();
      const report = {
        model: options.model,
        weights: options.weights,
        threads: backend.threads,
        verifier: options.verifier,
        ...step.value,
      };
      if (options.output !== undefined) writeFileAtomic(options.output, `${JSON.stringify(report, null, 2)}\n`);
      if (context.json) return context.printJson(report);
      show(step.value, context);
    } finally {
      line.clear();
      for (const { drafter } of entries) drafter.dispose();
    }
  },
});

function show({ rows, costCurve, rounds }: BenchDecodeReport, { print, stdout }: CommandContext): void {
  const one = costCurve[0].milliseconds;
  print(
    `a call on n tokens, v(n): ${costCurve.map(({ tokens, milliseconds }) => `${tokens}: ${(milliseconds / one).toFixed(2)}`).join("  ")}`,
  );
  print(`one token: ${one.toFixed(2)} ms\n`);
  const cells = rows.map((row) => [
    row.drafter,
    row.task,
    row.tokensPerStep.toFixed(2),
    row.draftsPerStep.toFixed(2),
    row.draftMilliseconds.toFixed(2),
    row.acceptanceByPosition
      .slice(0, 5)
      .map((share) => share.toFixed(2))
      .join(" ") || "-",
    row.plainTokensPerSecond.toFixed(1),
    row.tokensPerSecond.toFixed(1),
    `${row.speedup.toFixed(2)} (${row.speedupRange.map((value) => value.toFixed(2)).join("–")})`,
    row.lossless,
  ]);
  const header = ["drafter", "task", "τ", "drafts", "draft ms", "accepted by position", "plain tok/s", "tok/s", "speed-up", "lossless"];
  print(table(cells, { header, align: "llrrrlrrll", colors: stdout.colors }));
  const widest = Math.max(...rows.map(({ speedup }) => speedup), 1);
  const room = Math.max(20, Math.min(60, stdout.columns - 45));
  for (const row of rows) print(bar(row, widest, room));
  print(`\nspeed-ups: medians of ${rounds} rounds, decoding alone; prompts are read once in both. | is plain decoding.`);
}

/** A bar to scale, with a mark at 1. */
function bar({ drafter, task, speedup }: BenchRow, widest: number, room: number): string {
  const length = Math.round((speedup / widest) * room);
  const mark = Math.round(room / widest);
  const cells = Array.from({ length: room + 1 }, (_, i) => (i < length ? (i === mark ? "|" : "█") : i === mark ? "|" : " ")).join("");
  return `${`${drafter} ${task}`.slice(0, 34).padEnd(35)}${cells.trimEnd()} ${speedup.toFixed(2)}`;
}
