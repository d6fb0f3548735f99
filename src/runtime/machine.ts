// What the machine is: the facts that every speed claim is told with.
import { readFileSync } from "node:fs";
import { availableParallelism, cpus, freemem, totalmem } from "node:os";
import { physicalCores } from "./physical-cores.ts";

export interface Machine {
  /** `linux-x64` */
  readonly platform: string;
  readonly node: string;
  readonly cpu: string;
  /** Hardware threads that this process may use. */
  readonly hardwareThreads: number;
  readonly physicalCores: number;
  /** Vector extensions that ONNX Runtime's kernels make use of; empty where the system does not tell. */
  readonly vectorExtensions: readonly string[];
  readonly memoryBytes: number;
  readonly freeMemoryBytes: number;
}

/** Extensions for which ONNX Runtime has kernels, as /proc/cpuinfo spells them. */
const usefulExtensions = [
  "avx2",
  "fma",
  "avx_vnni",
  "avx512f",
  "avx512_vnni",
  "avx512_bf16",
  "amx_int8",
  "asimd",
  "asimddp",
  "i8mm",
  "bf16",
];

export function describeMachine(): Machine {
  const limit = process.constrainedMemory?.() ?? 0;
  const memory = totalmem();
  // A container's limit counts when it is below what the machine has; "no limit" is 0 or a huge number.
  const memoryBytes = limit > 0 && limit < memory ? limit : memory;
  return {
    platform: `${process.platform}-${process.arch}`,
    node: process.versions.node,
    cpu: cpus()[0]?.model.trim() ?? "unknown",
    hardwareThreads: availableParallelism(),
    physicalCores: physicalCores(),
    vectorExtensions: vectorExtensions(),
    memoryBytes,
    freeMemoryBytes: Math.min(availableMemory(), memoryBytes),
  };
}

function readProc(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return ""; // Not Linux, or a container that hides it.
  }
}

function vectorExtensions(): string[] {
  const line = /^(?:flags|Features)\s*:(.*)$/m.exec(readProc("/proc/cpuinfo"))?.[1] ?? "";
  const flags = new Set(line.split(/\s+/));
  return usefulExtensions.filter((name) => flags.has(name));
}

/** Memory that can be had without swapping; `freemem` does not count the page cache, which Linux gives back. */
function availableMemory(): number {
  const kibibytes = /^MemAvailable:\s*(\d+) kB$/m.exec(readProc("/proc/meminfo"))?.[1];
  return kibibytes === undefined ? freemem() : Number(kibibytes) * 1024;
}
