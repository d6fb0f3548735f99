// What a benchmark is: cases, each with contenders that are sampled in turn (A, B, A, B …), so that a drift of the machine meets all alike.
import type { PeerFactory } from "./peer.ts";

export interface Contender {
  name: string;
  /** Ours come first in the table; ratios are ours over the peer's of the same round. */
  side: "ours" | "peer";
  /** One sample, in the unit of the case: a fixed number of repetitions inside, their median or mean. */
  sample(): number | Promise<number>;
  /** Shown below the table: what this number means, or what was checked. */
  note?: string;
}

export interface Case {
  name: string;
  unit: "s" | "ms" | "µs";
  contenders: Contender[];
  /** Facts beside the times, such as resident bytes or agreement with the peer. Read after the last round. */
  facts?: () => string[];
}

export interface Context {
  /** Threads for ours and theirs. */
  threads: number;
  rounds: number;
  /** Undefined without LONGWAVE_BENCH_PYTHON. */
  peers: PeerFactory | undefined;
  /** A folder that lasts from run to run, for files that are expensive to make. */
  cacheFolder: string;
  /** Slow extras (compiling the peer) that are off by default. */
  thorough: boolean;
  /** Runs at the end, last registered first. */
  defer(close: () => void | Promise<void>): void;
}

export interface Benchmark {
  name: string;
  summary: string;
  /** What the peer needs; shown when it is missing. */
  peer: string;
  /** About how long five rounds take on two quiet cores, with the peer. */
  seconds: number;
  prepare(context: Context): Case[] | Promise<Case[]>;
}

/** Mean time of `repeats` runs, in milliseconds. */
export function meanMs(repeats: number, run: () => void): number {
  const start = performance.now();
  for (let i = 0; i < repeats; i++) run();
  return (performance.now() - start) / repeats;
}

/** Median of the times of `repeats` runs, in milliseconds. */
export function medianMs(repeats: number, run: () => void): number {
  const times: number[] = [];
  for (let i = 0; i < repeats; i++) {
    const start = performance.now();
    run();
    times.push(performance.now() - start);
  }
  return median(times);
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
