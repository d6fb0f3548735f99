// `npm run bench -- [name ...] [--rounds n] [--list] …`: our speed beside that of the tools people use today, in one run.
import { mkdirSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { openBackend } from "../src/runtime/open.ts";
import { bpe } from "./bpe.ts";
import { checkpoint } from "./checkpoint.ts";
import { decode } from "./decode.ts";
import { firstToken } from "./first-token.ts";
import { fisherVectorProduct } from "./fisher-vector-product.ts";
import { grpo } from "./grpo.ts";
import type { Benchmark } from "./harness/benchmark.ts";
import { caseLines, describeMachine, machineLines } from "./harness/print.ts";
import { type CaseResult, runBenchmark } from "./harness/run.ts";
import { noRepeat } from "./no-repeat.ts";
import { rl } from "./rl.ts";
import { tinyProgram } from "./tiny-program.ts";
import { trainStep } from "./train-step.ts";

const benchmarks: readonly Benchmark[] = [
  trainStep,
  tinyProgram,
  fisherVectorProduct,
  decode,
  bpe,
  checkpoint,
  grpo,
  rl,
  firstToken,
  noRepeat,
];

const usage = `npm run bench -- [name ...] [options]
  --list         name the benchmarks and end
  --rounds n     interleaved rounds, at least 1 (default 5)
  --threads n    threads for ours and theirs (default: physical cores)
  --pause ms     rest between two contenders (default 250)
  --peer-wait w  passive (default): the peers' threads sleep at barriers; default: they spin first, fairer to them on a quiet machine
  --thorough     also what takes long to prepare (torch.compile)
  --json file    write all samples
Peers: LONGWAVE_BENCH_PYTHON names a Python that has what --list says. Large files go to LONGWAVE_BENCH_CACHE (default: the system's
temporary folder).`;

export async function main(args: readonly string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      list: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
      rounds: { type: "string", default: "5" },
      threads: { type: "string" },
      pause: { type: "string", default: "250" },
      "peer-wait": { type: "string", default: "passive" },
      thorough: { type: "boolean", default: false },
      json: { type: "string" },
    },
  });
  const print = (lines: readonly string[]) => process.stdout.write(`${lines.join("\n")}\n`);
  if (values.help) {
    print([usage]);
    return 0;
  }
  if (values.list) {
    for (const { name, summary, peer, seconds } of benchmarks) print([`${name}  (about ${seconds} s)`, `  ${summary}`, `  peer: ${peer}`]);
    return 0;
  }
  const unknown = positionals.filter((name) => !benchmarks.some((benchmark) => benchmark.name === name));
  if (unknown.length > 0) {
    process.stderr.write(`bench: expected ${benchmarks.map(({ name }) => name).join(", ")}, got ${unknown.join(", ")}\n`);
    return 2;
  }
  const rounds = positive("rounds", values.rounds);
  const pauseMs = positive("pause", values.pause);
  const wait = values["peer-wait"];
  if (wait !== "passive" && wait !== "default") throw new Error(`--peer-wait: expected passive or default, got ${wait}`);
  const { backend } = openBackend(values.threads === undefined ? {} : { threads: positive("threads", values.threads) });
  const machine = describeMachine(backend.threads, backend.version);
  backend.dispose();
  print([...machineLines(machine), ""]);
  const python = process.env.LONGWAVE_BENCH_PYTHON;
  const cacheFolder = process.env.LONGWAVE_BENCH_CACHE ?? join(tmpdir(), "longwave-bench");
  mkdirSync(cacheFolder, { recursive: true });
  const results: CaseResult[] = [];
  let failures = 0;
  for (const benchmark of benchmarks) {
    if (positionals.length > 0 && !positionals.includes(benchmark.name)) continue;
    print([`${benchmark.name}: ${benchmark.summary}`, ""]);
    const missing = python ? undefined : `set LONGWAVE_BENCH_PYTHON to a Python with ${benchmark.peer}`;
    try {
      const { threads } = machine;
      const onCase = (result: CaseResult) => print(caseLines(result, missing));
      const settings = { rounds, threads, cacheFolder, thorough: values.thorough, python, wait, pauseMs, onCase } as const;
      results.push(...(await runBenchmark(benchmark, settings)));
    } catch (error) {
      failures++;
      print([`  failed: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`, ""]);
    }
  }
  if (values.json) writeFileSync(values.json, `${JSON.stringify({ machine, rounds, peerWait: wait, results }, null, 2)}\n`);
  return failures > 0 ? 1 : 0;
}

function positive(name: string, text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new Error(`--${name}: expected a positive integer, got ${text}`);
  return value;
}
