// The cached face, by the fused kernel and composed, against the parallel face and the plain implementation: token by token, in chunks
// of any size, all at once, and for a batch of sequences of unequal lengths.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { DecoderRunner, type RunnerOptions } from "../../decode/runner.ts";
import type { Backend } from "../../runtime/backend.ts";
import { bufferFrom, type TensorBuffer } from "../../runtime/buffer.ts";
import { openBackend } from "../../runtime/open.ts";
import { compile, spec } from "../../runtime/program.ts";
import { mapTree } from "../../tensor/tree.ts";
import { type CachedEmission, emissionFor } from "./cached.ts";
import { type DecoderTensors, decoderForward, decoderLogits } from "./decoder.ts";
import { referenceLogits } from "./testing/reference.ts";
import { randomDecoder, randomIds, variants } from "./testing/variants.ts";

let backend: Backend;
beforeAll(() => {
  backend = openBackend({ threads: 1 }).backend;
});
afterAll(() => backend.dispose());

const time = 11;

type Decoder = ReturnType<typeof randomDecoder>;

/** Logits [T][V] of the parallel face. */
function parallelLogits({ config, specs, parameters }: Decoder, ids: readonly number[]): Float32Array[] {
  const program = compile(
    backend,
    ({ parameters: tensors, ids: ids_BT }) => {
      const { hidden } = decoderForward(config, tensors as unknown as DecoderTensors, ids_BT);
      return { logits: decoderLogits(config, tensors as unknown as DecoderTensors, hidden) };
    },
    { parameters: mapTree(specs, (leaf) => spec("f32", leaf.shape)), ids: spec("i32", [1, ids.length]) },
    { threads: 1 },
  );
  const { logits } = program.run({ parameters: parameters.tree, ids: bufferFrom("i32", [1, ids.length], ids) } as never) as unknown as {
    logits: TensorBuffer<"f32">;
  };
  program.dispose();
  return ids.map((_, t) => logits.data.slice(t * config.vocabSize, (t + 1) * config.vocabSize));
}

function expectClose(actual: Float32Array, expected: ArrayLike<number>, what: string): void {
  const limit = 1e-4 * Math.max(1, ...Array.from(expected, Math.abs));
  for (let v = 0; v < expected.length; v++)
    expect(Math.abs(actual[v] - expected[v]), `${what}, logit ${v}: ${actual[v]} and ${expected[v]}`).toBeLessThan(limit);
}

describe.each(variants)("$name", ({ config }) => {
  const decoder = randomDecoder(config);
  const sequences = [5, 6, 7].map((seed) => randomIds(config, time, seed));
  const [ids] = sequences;
  const emissions: CachedEmission[] = emissionFor(config) === "fused" ? ["fused", "composed"] : ["composed"];
  const runner = (emission: CachedEmission, options: RunnerOptions = {}) =>
    new DecoderRunner(backend, decoder, { weights: "bound", emission, ...options });
  let expected: Float32Array[][];
  beforeAll(() => {
    expected = sequences.map((sequence) => parallelLogits(decoder, sequence));
  });

  test("the parallel face in float32", () => {
    const reference = referenceLogits(config, decoder.parameters.leaves, ids);
    for (const [t, row] of reference.entries()) expectClose(expected[0][t], row, `token ${t}`);
  });

  test.each(emissions)("%s: token by token, in chunks, all at once, and back", (emission) => {
    using run = runner(emission);
    for (const [t, id] of ids.entries()) expectClose(run.append(0, [id]), expected[0][t], `token ${t}`);
    for (const sizes of [[time], [1, 4, 1, 5], [7, 1, 3]]) {
      run.reset(0);
      let start = 0;
      for (const size of sizes) {
        const logits = run.appendAll(0, ids.slice(start, start + size));
        for (let i = 0; i < size; i++)
          expectClose(
            logits.subarray(i * config.vocabSize, (i + 1) * config.vocabSize),
            expected[0][start + i],
            `${sizes}: token ${start + i}`,
          );
        start += size;
      }
    }
    // What lies beyond the length of a truncated sequence must not be seen.
    run.cache.truncate(0, 4);
    expectClose(run.append(0, ids.slice(4, 9)), expected[0][8], "after going back");
  });

  test.each(emissions)("%s: a batch of unequal lengths", (emission) => {
    using run = runner(emission, { batch: sequences.length });
    const lengths = [1, 5, 3];
    for (const [row, sequence] of sequences.entries())
      expectClose(run.append(row, sequence.slice(0, lengths[row])), expected[row][lengths[row] - 1], `prompt ${row}`);
    for (let step = 0; step < time - 5; step++) {
      const logits = run.step(sequences.map((sequence, row) => sequence[lengths[row]]));
      for (const row of sequences.keys())
        expectClose(
          logits.subarray(row * config.vocabSize, (row + 1) * config.vocabSize),
          expected[row][lengths[row]],
          `step ${step}, row ${row}`,
        );
      for (const row of sequences.keys()) lengths[row]++;
    }
  });
});
