// How far the texts that a drafter and verifier make are from the model's own joint law of two tokens, computed exactly from its logits.
import { allocateDecoder, type LoadedDecoder } from "../../models/decoder/checkpoint.ts";
import { decoderConfig } from "../../models/decoder/config.ts";
import { initializeParameters } from "../../nn/parameter.ts";
import type { Backend } from "../../runtime/backend.ts";
import type { Drafter } from "../drafter.ts";
import { generate } from "../generate.ts";
import { DecoderRunner } from "../runner.ts";
import { logSumExp } from "../sampling/log-probabilities.ts";
import type { Verifier } from "../verifiers/verifier.ts";

export type TinyDecoder = Pick<LoadedDecoder, "config" | "specs" | "parameters">;

/** 8 tokens, random weights that make sharp and flat rows. */
export function tinyDecoder(seed = 5): TinyDecoder {
  const decoder = allocateDecoder(
    decoderConfig({ vocabSize: 8, width: 16, layers: 1, heads: 2, headWidth: 8, contextLength: 16, initStd: 0.6 }),
  );
  initializeParameters(decoder.specs as never, decoder.parameters, seed);
  return decoder;
}

export const lawSampling = { temperature: 0.9, topK: 6 };
const prompt = [3, 1];
const numTexts = process.env.LONGWAVE_TEST_LONG === "1" ? 100_000 : 4000;

/** The exact law of two tokens after the prompt, from the logits. */
function exactLaw(backend: Backend, decoder: TinyDecoder): Map<string, number> {
  using runner = new DecoderRunner(backend, decoder, { weights: "shared" });
  const law = new Map<string, number>();
  const rowOf = (context: readonly number[]): number[] => {
    runner.reset(0);
    const logits = Float64Array.from(runner.append(0, context), (x) => x / lawSampling.temperature);
    const sixth = logits.toSorted().at(-lawSampling.topK) as number;
    const kept = logits.map((x) => (x >= sixth ? x : Number.NEGATIVE_INFINITY));
    const total = logSumExp(Float32Array.from(kept));
    return Array.from(kept, (x) => Math.exp(x - total));
  };
  for (const [a, p] of rowOf(prompt).entries())
    for (const [b, q] of rowOf([...prompt, a]).entries()) if (p * q > 0) law.set(`${a},${b}`, p * q);
  return law;
}

/** χ² of two-token texts against the law, over its degrees of freedom in standard deviations: about 0 ± 1 where they are the same. */
export async function lawDeviation(backend: Backend, decoder: TinyDecoder, drafter: Drafter, verifier: Verifier): Promise<number> {
  using runner = new DecoderRunner(backend, decoder, { weights: "shared" });
  const counts = new Map<string, number>();
  // Of three tokens the first two, so that both may be drafts of one block: the first alone would hide mistakes at the second.
  const requests = Array.from({ length: numTexts }, () => ({
    ids: prompt,
    sampling: lawSampling,
    maxNewTokens: 3,
    eosTokenIds: [],
    seed: 17,
  }));
  for await (const event of generate(runner, requests, { drafter, verifier })) {
    if (event.kind !== "finish") continue;
    const key = event.ids.slice(0, 2).join();
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  const law = exactLaw(backend, decoder);
  // What the law excludes is infinitely far away.
  for (const key of counts.keys()) if (!law.has(key)) return Number.POSITIVE_INFINITY;
  let [chiSquare, cells, restCount, restMass] = [0, 0, 0, 0];
  for (const [key, p] of law) {
    const count = counts.get(key) ?? 0;
    if (p * numTexts >= 5) {
      chiSquare += (count - p * numTexts) ** 2 / (p * numTexts);
      cells++;
    } else {
      restCount += count;
      restMass += p;
    }
  }
  if (restMass > 0) {
    chiSquare += (restCount - restMass * numTexts) ** 2 / (restMass * numTexts);
    cells++;
  }
  return (chiSquare - (cells - 1)) / Math.sqrt(2 * (cells - 1));
}
