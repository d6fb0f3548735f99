// Checkpoints as they are found, with the logits and greedy tokens of transformers: every face of the decoder, through every load.
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { complete } from "../../src/decode/generate.ts";
import { DecoderRunner } from "../../src/decode/runner.ts";
import { openSafetensors } from "../../src/formats/index.ts";
import { type LoadedDecoder, loadDecoder, saveDecoder } from "../../src/models/decoder/checkpoint.ts";
import { type DecoderTensors, decoderForward, decoderLogits } from "../../src/models/decoder/decoder.ts";
import type { Backend } from "../../src/runtime/backend.ts";
import { bufferFrom, type TensorBuffer } from "../../src/runtime/buffer.ts";
import { openBackend } from "../../src/runtime/open.ts";
import { compile, spec } from "../../src/runtime/program.ts";
import { mapTree } from "../../src/tensor/tree.ts";

const temporary = mkdtempSync(join(tmpdir(), "longwave-golden-decoder-"));
let backend: Backend;
beforeAll(() => {
  backend = openBackend({ threads: 1 }).backend;
});
afterAll(() => {
  backend.dispose();
  rmSync(temporary, { recursive: true, force: true });
});

interface Expected {
  prompts: { ids: number[]; greedy: number[]; greedyLogProbs: number[] }[];
}

function parallelLogits({ config, specs, parameters }: LoadedDecoder, ids: readonly number[]): Float32Array {
  const program = compile(
    backend,
    ({ parameters: tensors, ids: ids_BT }) => {
      const { hidden } = decoderForward(config, tensors as unknown as DecoderTensors, ids_BT);
      return decoderLogits(config, tensors as unknown as DecoderTensors, hidden);
    },
    { parameters: mapTree(specs, (leaf) => spec("f32", leaf.shape)), ids: spec("i32", [1, ids.length]) },
    { threads: 1 },
  );
  const logits = program.run({ parameters: parameters.tree, ids: bufferFrom("i32", [1, ids.length], ids) } as never);
  program.dispose();
  return (logits as unknown as TensorBuffer<"f32">).data;
}

/** 1e-4 of the largest logit: what float32 in another order of summation gives. */
function expectClose(actual: ArrayLike<number>, expected: ArrayLike<number>): void {
  expect(actual.length).toBe(expected.length);
  const limit = 1e-4 * Math.max(...Array.from(expected, Math.abs));
  let worst = 0;
  for (let i = 0; i < expected.length; i++) worst = Math.max(worst, Math.abs(actual[i] - expected[i]));
  expect(worst).toBeLessThan(limit);
}

describe.each(["checkpoints/gpt2-prefixed", "decoder/smollm2", "decoder/qwen3"])("%s", (name) => {
  const folder = fileURLToPath(new URL(name, import.meta.url));
  const { prompts } = JSON.parse(readFileSync(join(folder, "expected.json"), "utf8")) as Expected;
  const decoder = loadDecoder(folder);
  using source = openSafetensors(join(folder, "expected.safetensors"));
  const logits = prompts.map((_, k) => source.read(`logits.${k}`).data as Float32Array);

  test("every tensor of the file has a place", () => {
    expect(decoder.unused).toEqual([]);
  });

  test("logits of whole sequences, and after the checkpoint was written and read again", () => {
    const copy = mkdtempSync(join(temporary, "copy-"));
    saveDecoder(copy, decoder);
    const again = loadDecoder(copy);
    expect(again.config).toEqual({ ...decoder.config, initStd: again.config.initStd });
    for (const [k, { ids }] of prompts.entries()) {
      expectClose(parallelLogits(decoder, ids), logits[k]);
      expectClose(parallelLogits(again, ids), logits[k]);
    }
  });

  test("greedy tokens and their log-probabilities over the cache", async () => {
    using runner = new DecoderRunner(backend, decoder);
    for (const [k, { ids, greedy }] of prompts.entries()) {
      runner.reset(0);
      expectClose(runner.appendAll(0, ids), logits[k]);
      const result = await complete(runner, { ids, sampling: { doSample: false }, maxNewTokens: greedy.length, eosTokenIds: [] });
      expect(result.ids).toEqual(greedy);
    }
  });
});
