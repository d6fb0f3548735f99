// From a cold process to the first token: `longwave generate -n 1` on a model of the 135 M Llama shape, as safetensors and as GGUF, against
// reading the same file in the same round. Once with the file in the page cache, once dropped from it. And what of it stays in memory.
import { execFile, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { Benchmark, Case, Context } from "./harness/benchmark.ts";
import { median } from "./harness/benchmark.ts";
import { type BenchModel, benchModel, type FileFormat, fileFormats } from "./harness/models.ts";
import { pageDropper, readSeconds } from "./harness/page-cache.ts";

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
const cli = here("../dist/cli/main.js");

/** The first token is to come within so many times the reading and a second. */
const goal = { readings: 2, seconds: 1 };
/** Resident bytes of weights over those of the file. */
const memoryGoal = { shared: 1.3, packed: 2.2 };

export const firstToken: Benchmark = {
  name: "first-token",
  summary: `first token of a 135 M model from a cold process (the built package), at most ${goal.readings} × reading its file + ${goal.seconds} s; resident bytes`,
  peer: "(reading the same file, in this process)",
  seconds: 120,
  prepare,
};

async function prepare({ threads, cacheFolder }: Context): Promise<Case[]> {
  if (!existsSync(cli)) throw new Error(`${cli}: expected the built package; run npm run build`);
  const drop = pageDropper();
  const cases: Case[] = [];
  for (const format of fileFormats) {
    const model = await benchModel(cacheFolder, format);
    const memory = await memoryFacts(format, model);
    cases.push(startCase(`${format}, file in the page cache`, model, threads, undefined, memory));
    if (drop) cases.push(startCase(`${format}, file dropped from it`, model, threads, drop, []));
  }
  return cases;
}

function startCase(name: string, model: BenchModel, threads: number, drop: ((path: string) => void) | undefined, memory: string[]): Case {
  const [starts, readings]: [number[], number[]] = [[], []];
  return {
    name,
    unit: "s",
    contenders: [
      {
        name: "longwave generate -n 1",
        side: "ours",
        sample: async () => {
          drop?.(model.weightsFile);
          starts.push(await startSeconds(model.path, threads));
          return starts.at(-1) as number;
        },
      },
      {
        name: `reading ${(model.bytes / 1e6).toFixed(0)} MB`,
        side: "peer",
        sample: () => {
          drop?.(model.weightsFile);
          readings.push(readSeconds(model.weightsFile));
          return readings.at(-1) as number;
        },
      },
    ],
    facts: () => {
      // The first round is the warm-up.
      const [start, reading] = [median(starts.slice(1)), median(readings.slice(1))];
      const bound = goal.readings * reading + goal.seconds;
      return [`${start.toFixed(2)} s of ${bound.toFixed(2)} s allowed: ${start <= bound ? "within" : "missed"}`, ...memory];
    },
  };
}

/** Seconds from the start of the process to the first byte of text. */
function startSeconds(model: string, threads: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const start = performance.now();
    let first: number | undefined;
    let errors = "";
    const args = [cli, "generate", model, "--prompt", "abcd efgh", "-n", "1", "--ignore-eos", "--threads", String(threads)];
    const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "pipe"] });
    child.stdout.on("data", () => {
      first ??= (performance.now() - start) / 1000;
    });
    child.stderr.on("data", (data: Buffer) => {
      errors += data.toString();
    });
    child.on("error", reject);
    child.on("close", (code) => {
      if (code === 0 && first !== undefined) resolve(first);
      else reject(new Error(`longwave generate ended with ${code}: ${errors}`));
    });
  });
}

/** A small model that warms the code up. */
const small = here("../assets/stories260k/stories260K.bin");

/** Resident bytes of the weights after one call, over those of the file, and with the tokenizer. */
async function memoryFacts(format: FileFormat, { path, bytes }: BenchModel): Promise<string[]> {
  const facts: string[] = [];
  for (const weights of format === "f32" ? (["shared", "packed"] as const) : (["packed"] as const)) {
    const args = ["--expose-gc", "--import", here("../src/runtime/testing/register-typescript.mjs"), here("children/memory.ts")];
    const { stdout } = await promisify(execFile)(process.execPath, [...args, path, small, weights]);
    const { grown, grownWithText, told } = JSON.parse(stdout) as { grown: number; grownWithText: number; told: { weights: number } };
    const ratio = grown / bytes;
    // Weights stored in 16 bits are float32 in memory: no aim is set for them.
    const bound = format === "bf16" ? undefined : memoryGoal[weights];
    facts.push(
      `resident with ${weights} weights: ${(grown / 1e6).toFixed(0)} MB, ${(grown / told.weights).toFixed(2)} × the tensors in memory, ` +
        `${ratio.toFixed(2)} × the file${bound === undefined ? "" : ` (at most ${bound}: ${ratio <= bound ? "within" : "missed"})`}, ` +
        `${(grownWithText / bytes).toFixed(2)} × with the tokenizer`,
    );
  }
  return facts;
}
