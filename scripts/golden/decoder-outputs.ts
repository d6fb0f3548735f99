// What a decoder computes, by both of its ways: whole sequences at once (training) and over a cache (generation).
import { generate } from "../../src/decode/generate.ts";
import { DecoderRunner } from "../../src/decode/runner.ts";
import { tokenLogProbability } from "../../src/decode/sampling/log-probabilities.ts";
import type { LoadedDecoder } from "../../src/models/decoder/checkpoint.ts";
import { type DecoderTensors, decoderForward, decoderLogits, normalize } from "../../src/models/decoder/decoder.ts";
import type { Backend } from "../../src/runtime/backend.ts";
import { bufferFrom, type TensorBuffer } from "../../src/runtime/buffer.ts";
import { compile, spec } from "../../src/runtime/program.ts";
import { mapTree } from "../../src/tensor/tree.ts";
import { Malformed } from "./fields.ts";

export interface SequenceOutputs {
  /** [T, V] */
  logits: Float32Array;
  /** [T, C] after the final norm. */
  hidden: Float32Array;
  /** [T, C] as they enter each layer. */
  layers: Float32Array[];
}

/** A whole sequence at once. */
export function sequenceOutputs(backend: Backend, model: LoadedDecoder, ids: readonly number[]): SequenceOutputs {
  const { config, specs, parameters } = model;
  checkIds(ids, config.vocabSize);
  const inputs = { parameters: mapTree(specs, (leaf) => spec("f32", leaf.shape)), ids: spec("i32", [1, ids.length]) };
  const record = Array.from({ length: config.layers }, (_, i) => i);
  using program = compile(
    backend,
    (traced) => {
      const tensors = traced.parameters as unknown as DecoderTensors;
      const { hidden, layers } = decoderForward(config, tensors, traced.ids, { record });
      return {
        logits: decoderLogits(config, tensors, hidden),
        hidden: normalize(config, hidden, tensors.norm),
        layers: record.map((i) => {
          const rows = layers.get(i);
          if (!rows) throw new Error(`layer ${i} was not recorded`);
          return rows;
        }),
      };
    },
    inputs,
    { name: "whole sequence" },
  );
  const bound = program.bind({ parameters: parameters.tree, ids: bufferFrom("i32", [1, ids.length], ids) } as never);
  bound.run();
  const outputs = bound.outputs as unknown as { logits: TensorBuffer; hidden: TensorBuffer; layers: TensorBuffer[] };
  const floats = ({ data }: TensorBuffer): Float32Array => data as Float32Array;
  return { logits: floats(outputs.logits), hidden: floats(outputs.hidden), layers: outputs.layers.map(floats) };
}

/** Logits [T, V] of a sequence that is put into row `row` of an empty cache. */
export function cachedLogits(runner: DecoderRunner, row: number, ids: readonly number[]): Float32Array {
  checkIds(ids, runner.config.vocabSize);
  runner.reset(row);
  return runner.appendAll(row, Int32Array.from(ids)).slice();
}

/** A runner with room for `length` tokens in each of its sequences. */
export function openRunner(backend: Backend, model: LoadedDecoder, length: number, batch = 1): DecoderRunner {
  return new DecoderRunner(backend, model, { batch, capacity: length, prefillChunk: length });
}

export interface GreedyResult {
  ids: number[];
  logProbs: number[];
}

/** Greedy continuations of all prompts, end-of-sequence ignored. Prompts beyond the runner's batch wait for a free row. */
export async function greedy(
  runner: DecoderRunner,
  prompts: readonly { ids: readonly number[]; maxNewTokens: number }[],
): Promise<GreedyResult[]> {
  const results: GreedyResult[] = prompts.map(() => ({ ids: [], logProbs: [] }));
  const requests = prompts.map(({ ids, maxNewTokens }) => ({
    ids,
    maxNewTokens,
    sampling: { doSample: false },
    eosTokenIds: [],
    logProbs: 0,
  }));
  for await (const event of generate(runner, requests)) {
    if (event.kind !== "token") continue;
    results[event.request].ids.push(event.id);
    results[event.request].logProbs.push(event.logProb ?? Number.NaN);
  }
  return results;
}

/** log p of each token of `continuation` after `ids`. */
export function continuationLogProbs(runner: DecoderRunner, ids: readonly number[], continuation: readonly number[]): number[] {
  const { vocabSize } = runner.config;
  const logits = cachedLogits(runner, 0, [...ids, ...continuation]);
  return continuation.map((id, i) => {
    const row = ids.length - 1 + i;
    return tokenLogProbability(logits.subarray(row * vocabSize, (row + 1) * vocabSize), id);
  });
}

function checkIds(ids: readonly number[], vocabSize: number): void {
  const wrong = ids.find((id) => id < 0 || id >= vocabSize);
  if (ids.length === 0 || wrong !== undefined) throw new Malformed(`ids: expected ids from 0 to ${vocabSize - 1}, got ${wrong ?? "none"}`);
}
