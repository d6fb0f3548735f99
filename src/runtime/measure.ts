// How fast this machine is through the backend: the peak that MFU is relative to, and the speed of its memory.
import { matmul } from "../tensor/matmul.ts";
import { max } from "../tensor/reduce.ts";
import type { Backend } from "./backend.ts";
import type { BoundProgram } from "./program.ts";
import { compile, spec } from "./program.ts";

export interface Speed {
  /** Best of several float32 products of two 1024 × 1024 matrices, in 10⁹ operations a second (2 · 1024³ each). */
  readonly matmulGflops: number;
  /** Best of several reductions over memory far larger than the caches, in 10⁹ bytes a second. */
  readonly readGBps: number;
}

/** Takes about two seconds. @throws BackendError */
export function measureSpeed(backend: Backend, freeMemoryBytes: number): Speed {
  // 256 MiB is far above any last-level cache of ordinary machines; less only where memory is short.
  const numRows = Math.max(16, Math.min(1024, Math.floor(freeMemoryBytes / 4 / 2 ** 18)));
  using program = compile(
    backend,
    ({ data }) => ({ largest: max(data, { axes: [1] }) }),
    { data: spec("f32", [numRows, 2 ** 16]) },
    { name: "read" },
  );
  const bound = program.bind();
  // Untouched pages are all one page of zeros: reading them would measure the cache.
  bound.inputs.data.data.fill(1);
  const seconds = bestSeconds(bound, 1000);
  return { matmulGflops: measurePeakFlops(backend, { milliseconds: 1000 }) / 1e9, readGBps: (numRows * 2 ** 18) / seconds / 1e9 };
}

/** Best of several float32 products of two square matrices, in operations a second (2 n³ each). Takes about half a second. */
export function measurePeakFlops(
  backend: Backend,
  { size = 1024, milliseconds = 500 }: { size?: number; milliseconds?: number } = {},
): number {
  using program = compile(
    backend,
    ({ a, b }) => ({ c: matmul(a, b) }),
    { a: spec("f32", [size, size]), b: spec("f32", [size, size]) },
    { name: "peak" },
  );
  const bound = program.bind();
  bound.inputs.a.data.fill(0.5);
  bound.inputs.b.data.fill(0.25);
  return (2 * size ** 3) / bestSeconds(bound, milliseconds);
}

function bestSeconds(bound: BoundProgram<unknown, unknown>, milliseconds: number): number {
  let best = Number.POSITIVE_INFINITY;
  const end = performance.now() + milliseconds;
  for (let run = 0; run < 3 || (run < 100 && performance.now() < end); run++) {
    const start = performance.now();
    bound.run();
    best = Math.min(best, performance.now() - start);
  }
  return best / 1000;
}
