// How fast this machine multiplies matrices through the backend: the peak that MFU is relative to.

import { matmul } from "../tensor/matmul.ts";
import type { Backend } from "./backend.ts";
import { compile, spec } from "./program.ts";

/** Best of several float32 products of two 1024 × 1024 matrices, in operations a second (2 · 1024³ each). Takes about half a second. */
export function measurePeakFlops(backend: Backend, size = 1024, milliseconds = 500): number {
  const program = compile(
    backend,
    ({ a, b }) => ({ c: matmul(a, b) }),
    { a: spec("f32", [size, size]), b: spec("f32", [size, size]) },
    { name: "peak" },
  );
  try {
    const bound = program.bind();
    bound.inputs.a.data.fill(0.5 as never);
    bound.inputs.b.data.fill(0.25 as never);
    let best = Number.POSITIVE_INFINITY;
    const end = performance.now() + milliseconds;
    for (let run = 0; run < 3 || performance.now() < end; run++) {
      const start = performance.now();
      bound.run();
      best = Math.min(best, performance.now() - start);
    }
    return (2 * size ** 3) / (best / 1000);
  } finally {
    program.dispose();
  }
}
