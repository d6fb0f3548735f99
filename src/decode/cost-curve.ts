// v(n): what one call of the target on n new tokens costs, over one on a single token. It decides how many drafts pay.
import type { Drafter } from "./drafter.ts";
import type { DecoderRunner } from "./runner.ts";
import { createProcessor } from "./sampling/processor.ts";
import type { CostPoint } from "./static-tree.ts";
import { TreeShape } from "./token-tree.ts";

export interface CostCurveOptions {
  /** Tokens in the cache before each call. Default: a quarter of the capacity. */
  past?: number;
  /** Timed calls of each shape. Default 40. */
  repeats?: number;
  /** Told after each burst of calls. */
  onProgress?: (done: number, total: number) => void;
}

/** Calls of one shape after each other; the first of them, which finds caches cold and inputs unbound, does not count. */
const burst = 5;

/**
 * Median milliseconds of a call for each shape, over a cache that holds `past` tokens. Shapes take turns in short bursts, so that a machine
 * that is slower for a while is so for all. The runner's row 0 is empty afterwards.
 */
export function measureCostCurve(runner: DecoderRunner, shapes: readonly TreeShape[], options: CostCurveOptions = {}): CostPoint[] {
  const { past = Math.floor(runner.capacity / 4), repeats = 40, onProgress } = options;
  const ids = new Int32Array(Math.max(past, 1, ...shapes.map(({ size }) => size)));
  runner.reset(0);
  runner.append(0, ids.subarray(0, Math.max(1, past)));
  const start = runner.cache.lengths[0];
  const times = shapes.map((): number[] => []);
  const rounds = Math.ceil(repeats / (burst - 1));
  for (let round = -1; round < rounds; round++) {
    for (const [i, shape] of shapes.entries()) {
      for (let call = 0; call < burst; call++) {
        const startedAt = performance.now();
        runner.appendTree(0, shape, ids);
        const milliseconds = performance.now() - startedAt;
        // The round before the first one compiles and warms up.
        if (round >= 0 && call > 0) times[i].push(milliseconds);
        runner.cache.truncate(0, start);
      }
      onProgress?.((round + 1) * shapes.length + i + 1, (rounds + 1) * shapes.length);
    }
  }
  runner.reset(0);
  return shapes.map(({ size }, i) => ({ tokens: size, milliseconds: times[i].sort((a, b) => a - b)[Math.floor(times[i].length / 2)] }));
}

/** Median milliseconds of a proposal after one observed step. The runner's row 0 is empty afterwards. */
export function measureDraftCost(runner: DecoderRunner, drafter: Drafter, repeats = 100): number {
  const { config, cache, capacity } = runner;
  const ids = new Int32Array(capacity);
  const processor = createProcessor({ doSample: false }, { vocabularySize: config.vocabSize });
  runner.provide(drafter.needs);
  runner.reset(0);
  drafter.begin({ config });
  const rows = runner.appendTree(0, TreeShape.chain(0), ids);
  drafter.observe({ path: new Int32Array(1), numAccepted: 0, token: 0, rows });
  const context = {
    ids,
    numIds: 2,
    promptLength: 1,
    maxNodes: capacity - 2,
    maxDepth: capacity - 2,
    processor,
    key: { seed: 0 },
    cache,
    row: 0,
    costs: runner.costs,
  };
  const times = Array.from({ length: repeats }, () => {
    const startedAt = performance.now();
    drafter.propose(context);
    return performance.now() - startedAt;
  });
  runner.reset(0);
  return times.sort((a, b) => a - b)[Math.floor(repeats / 2)];
}
