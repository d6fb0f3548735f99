// Runs benchmarks: interleaved rounds, then medians, and the ratio of ours to the peer within each round.
import type { Benchmark, Case, Context } from "./benchmark.ts";
import { median } from "./benchmark.ts";
import { pythonPeers, type WaitPolicy } from "./peer.ts";

export interface Spread {
  median: number;
  min: number;
  max: number;
}

export interface ContenderResult extends Spread {
  name: string;
  side: "ours" | "peer";
  samples: number[];
  note?: string;
  /** Ours over each peer, by the peer's name. Below 1: we are faster. */
  ratios: Record<string, Spread>;
}

export interface CaseResult {
  benchmark: string;
  case: string;
  unit: string;
  contenders: ContenderResult[];
  facts: string[];
}

export interface RunOptions {
  rounds: number;
  threads: number;
  cacheFolder: string;
  thorough: boolean;
  python: string | undefined;
  wait: WaitPolicy;
  /** Rest between two contenders, in milliseconds: threads that still spin fall asleep. */
  pauseMs: number;
  onCase: (result: CaseResult) => void;
}

/** Samples taken and thrown away first, by every contender: memory is touched, caches and clocks are warm. */
const warmUps = 1;

export async function runBenchmark(benchmark: Benchmark, options: RunOptions): Promise<CaseResult[]> {
  const closers: (() => void | Promise<void>)[] = [];
  const defer: Context["defer"] = (close) => closers.push(close);
  const { threads, rounds, cacheFolder, thorough, python, wait } = options;
  const results: CaseResult[] = [];
  try {
    const peers = python === undefined ? undefined : pythonPeers({ python, threads, wait }, defer);
    const cases = await benchmark.prepare({ threads, rounds, peers, cacheFolder, thorough, defer });
    for (const entry of cases) {
      const samples = await interleave(entry, options);
      const result = summarise(benchmark.name, entry, samples);
      results.push(result);
      options.onCase(result);
    }
  } finally {
    for (const close of closers.reverse()) await close();
  }
  return results;
}

async function interleave({ contenders }: Case, { rounds, pauseMs }: RunOptions): Promise<number[][]> {
  const samples = contenders.map(() => [] as number[]);
  for (let round = -warmUps; round < rounds; round++) {
    for (const [index, contender] of contenders.entries()) {
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
      const value = await contender.sample();
      if (round >= 0) samples[index].push(value);
    }
  }
  return samples;
}

function summarise(benchmark: string, { name, unit, contenders, facts }: Case, samples: readonly number[][]): CaseResult {
  const peers = contenders.flatMap((contender, index) => (contender.side === "peer" ? [{ ...contender, samples: samples[index] }] : []));
  return {
    benchmark,
    case: name,
    unit,
    contenders: contenders.map(({ name, side, note }, index) => ({
      name,
      side,
      note,
      samples: samples[index],
      ...spread(samples[index]),
      ratios:
        side === "peer"
          ? {}
          : Object.fromEntries(peers.map((peer) => [peer.name, spread(samples[index].map((value, round) => value / peer.samples[round]))])),
    })),
    facts: facts?.() ?? [],
  };
}

const spread = (values: readonly number[]): Spread => ({ median: median(values), min: Math.min(...values), max: Math.max(...values) });
