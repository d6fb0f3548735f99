// How many threads the pool gets. Two hardware threads of one core share its multipliers: matrix products want cores.
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { UsageError } from "../base/errors.ts";

/** Physical cores that this process may use: from /proc/cpuinfo on Linux, else `os.availableParallelism()`. */
export function physicalCores(): number {
  const usable = availableParallelism();
  if (process.platform !== "linux") return usable;
  let text: string;
  try {
    text = readFileSync("/proc/cpuinfo", "utf8");
  } catch {
    return usable; // A container may hide /proc.
  }
  return Math.min(usable, countCores(text) ?? usable);
}

/** Distinct (package, core) pairs in the text of /proc/cpuinfo; undefined where it names none (most ARM kernels). */
export function countCores(cpuinfo: string): number | undefined {
  const cores = new Set<string>();
  let packageId = "0";
  for (const line of cpuinfo.split("\n")) {
    const [key, value] = line.split(":", 2).map((part) => part.trim());
    if (key === "processor") packageId = "0";
    else if (key === "physical id") packageId = value;
    else if (key === "core id") cores.add(`${packageId}:${value}`);
  }
  return cores.size > 0 ? cores.size : undefined;
}

/** The option, else LONGWAVE_THREADS, else the physical cores. @throws UsageError unless it is an integer from 1 to 1024. */
export function threadsFrom(option: number | undefined, environment: NodeJS.ProcessEnv = process.env): number {
  const variable = environment.LONGWAVE_THREADS;
  const [value, source] =
    option !== undefined ? [option, "threads"] : variable ? [Number(variable), "LONGWAVE_THREADS"] : [physicalCores(), "physical cores"];
  if (Number.isInteger(value) && value >= 1 && value <= 1024) return value;
  throw new UsageError(`${source}: expected an integer from 1 to 1024, got ${option ?? variable}`, {
    hint: "Leave it out to use one thread for each physical core.",
  });
}
