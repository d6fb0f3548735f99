// What the machine is, and how fast it is through ONNX Runtime: the numbers that every speed claim refers to.
import { readFileSync } from "node:fs";
import { availableParallelism, cpus, freemem, totalmem } from "node:os";
import type { Backend } from "../runtime/backend.ts";
import { allocate, type TensorBuffer } from "../runtime/buffer.ts";
import { physicalCores } from "../runtime/physical-cores.ts";
import { Graph, type Tensor } from "../tensor/graph.ts";
import { matmul } from "../tensor/matmul.ts";
import { toOnnx } from "../tensor/onnx.ts";
import { max } from "../tensor/reduce.ts";

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

export interface Speed {
  /** Best of several float32 products of two 1024 × 1024 matrices, in 10⁹ operations a second (2 · 1024³ each). */
  readonly matmulGflops: number;
  /** Best of several reductions over memory far larger than the caches, in 10⁹ bytes a second. */
  readonly readGBps: number;
}

const matmulSize = 1024;
/** Each measurement stops after this many milliseconds. */
const budgetMs = 1000;

/** Takes about two seconds. @throws BackendError */
export function measureSpeed(backend: Backend, freeMemoryBytes: number): Speed {
  const graph = new Graph();
  const a = graph.input("a", "f32", [matmulSize, matmulSize]);
  const b = graph.input("b", "f32", [matmulSize, matmulSize]);
  const product = bestSeconds(backend, graph, [a, b], matmul(a, b));

  // 256 MiB is far above any last-level cache of ordinary machines; less only where memory is short.
  const numRows = Math.max(16, Math.min(1024, Math.floor(freeMemoryBytes / 4 / 2 ** 18)));
  const reading = new Graph();
  const data = reading.input("data", "f32", [numRows, 2 ** 16]);
  const seconds = bestSeconds(backend, reading, [data], max(data, { axes: [1] }));
  return { matmulGflops: (2 * matmulSize ** 3) / product / 1e9, readGBps: (numRows * 2 ** 18) / seconds / 1e9 };
}

function bestSeconds(backend: Backend, graph: Graph, tensors: readonly Tensor[], output: Tensor): number {
  const model = toOnnx(graph, [output]);
  const session = backend.createSession(model.bytes);
  try {
    const inputs = new Map<string, TensorBuffer>();
    for (const { name, tensor } of model.inputs) {
      const buffer = allocate("f32", tensor.shape as number[]);
      // Untouched pages are all one page of zeros: reading them would measure the cache.
      buffer.data.fill(1 / tensors.length);
      inputs.set(name, buffer);
    }
    const outputs = new Map([[model.outputs[0].name, allocate("f32", output.shape as number[])]]);
    const binding = session.bind(inputs, outputs);
    let best = Number.POSITIVE_INFINITY;
    const end = performance.now() + budgetMs;
    for (let run = 0; run < 3 || (run < 30 && performance.now() < end); run++) {
      const start = performance.now();
      binding.run();
      best = Math.min(best, (performance.now() - start) / 1000);
    }
    binding.dispose();
    return best;
  } finally {
    session.dispose();
  }
}
