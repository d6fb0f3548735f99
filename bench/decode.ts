// Decoding one token, and eight at once as speculation verifies them, with 100 tokens in the cache, and reading a prompt of 512: the 135 M
// Llama shape with random weights, in float32, 8 and 4 bits. The peers are llama.cpp on a model of the same shape in F32, Q8_0 and Q4_0, all
// logits computed, and node-llama-cpp, the way to llama.cpp from Node, token by token through its `evaluate`.
import { join } from "node:path";
import { DecoderRunner } from "../src/decode/runner.ts";
import { allocateDecoder } from "../src/models/decoder/checkpoint.ts";
import { decoderConfig } from "../src/models/decoder/config.ts";
import { decoderPresets } from "../src/models/decoder/presets.ts";
import { type InferenceModel, quantiseDecoder } from "../src/models/decoder/quantise.ts";
import { initializeParameters } from "../src/nn/parameter.ts";
import { openBackend } from "../src/runtime/open.ts";
import { type Benchmark, type Case, type Context, medianMs } from "./harness/benchmark.ts";
import { nodeLlamaPeer } from "./harness/peer.ts";

const config = decoderConfig({ ...decoderPresets["smollm2-135m"].options, vocabSize: 49_152 });
const past = 100;
const [shortCapacity, longCapacity] = [1024, 8192];
const tokens = (count: number): number[] => Array.from({ length: count }, (_, i) => (i * 7919 + 13) % config.vocabSize);
/** Calls of one sample: their median. */
const calls = { 1: 20, 8: 10 } as const;
const promptLength = 512;

const formats = [
  { name: "fp32", file: "F32", bits: undefined },
  { name: "int8", file: "Q8_0", bits: 8 },
  { name: "int4", file: "Q4_0", bits: 4 },
] as const;

export const decode: Benchmark = {
  name: "decode",
  summary: `135 M Llama shape, ${past} tokens past: 1 and 8 new tokens in fp32, int8 and int4, a prompt of ${promptLength}, and the cost of a long cache`,
  peer: "llama-cpp-python, gguf and numpy (writes 770 MB once); node-llama-cpp in the folder LONGWAVE_BENCH_NODE_LLAMA",
  seconds: 240,
  prepare,
};

async function prepare({ threads, peers, cacheFolder, defer }: Context): Promise<Case[]> {
  const { backend } = openBackend({ threads });
  defer(() => backend.dispose());
  const original = allocateDecoder(config);
  initializeParameters(original.specs as never, original.parameters, 0);
  const runnerOf = (model: InferenceModel, capacity: number): DecoderRunner => {
    const runner = new DecoderRunner(backend, model, { capacity });
    runner.append(0, tokens(past));
    return runner;
  };
  /** Median of some calls, each after the same past. */
  const time = (runner: DecoderRunner, count: 1 | 8) => (): number => {
    const ids = tokens(count);
    return medianMs(calls[count], () => {
      if (count === 1) runner.append(0, ids);
      else runner.appendAll(0, ids);
      runner.cache.truncate(0, past);
    });
  };
  const peer = peers?.("decode.py");
  const { heads, kvHeads, headWidth, width, layers, mlpWidth, vocabSize, rotaryBase } = config;
  const shape = { heads, kvHeads, headWidth, width, layers, mlpWidth, vocabSize, rotaryBase };
  await peer?.call("prepare", { folder: cacheFolder, shape, files: formats.map(({ file }) => file) });
  // Its models are the files that the first peer wrote.
  const nodePeer = peer && nodeLlamaPeer(threads, defer);
  const cases: Case[] = [];
  for (const { name, file, bits } of formats) {
    const model = bits === undefined ? original : quantiseDecoder(original, { bits, blockSize: 32 });
    const runner = runnerOf(model, shortCapacity);
    const note = await peer?.call<string | null>("load", { file, past: tokens(past), capacity: shortCapacity });
    for (const count of [1, 8] as const) {
      const entry: Case = {
        name: `${name}, ${count} new token${count > 1 ? "s" : ""}`,
        unit: "ms",
        contenders: [{ name: "longwave", side: "ours", sample: time(runner, count) }],
        facts: () => {
          const { weights, packedCopies, cache } = runner.memory;
          return count > 1
            ? []
            : [`memory: weights ${megabytes(weights)}, packed copies about ${megabytes(packedCopies)}, cache ${megabytes(cache)}`];
        },
      };
      if (peer) {
        entry.contenders.push({
          name: `llama.cpp ${file}`,
          side: "peer",
          note: note ?? undefined,
          sample: () => peer.call<number>("sample", { file, tokens: tokens(count), calls: calls[count] }),
        });
      }
      if (nodePeer && count === 1) {
        const path = join(cacheFolder, `llama-135m-words-${file}.gguf`);
        await nodePeer.call("load", { file, path, past: tokens(past), capacity: shortCapacity });
        entry.contenders.push({
          name: `node-llama-cpp ${file}`,
          side: "peer",
          sample: () => nodePeer.call<number>("sample", { file, calls: calls[1] }),
        });
      }
      cases.push(entry);
    }
    const prompt = tokens(promptLength);
    const prefill: Case = {
      name: `${name}, prompt of ${promptLength}`,
      unit: "ms",
      contenders: [
        {
          name: "longwave",
          side: "ours",
          sample: () => {
            runner.reset(0);
            const milliseconds = medianMs(1, () => runner.append(0, prompt));
            runner.reset(0);
            runner.append(0, tokens(past));
            return milliseconds;
          },
        },
      ],
    };
    if (peer)
      prefill.contenders.push({
        name: `llama.cpp ${file}`,
        side: "peer",
        sample: () => peer.call<number>("prefill", { file, tokens: prompt }),
      });
    cases.push(prefill);
    if (bits === 4) cases.push(longCache(model, runnerOf, time));
  }
  return cases;
}

const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(0)} MB`;

/** The same token with a cache eight times as long: its length should not matter, only how many tokens are in it. */
function longCache(
  model: InferenceModel,
  runnerOf: (model: InferenceModel, capacity: number) => DecoderRunner,
  time: (runner: DecoderRunner, count: 1) => () => number,
): Case {
  const [long, short] = [longCapacity, shortCapacity].map((capacity) => ({ capacity, runner: undefined as DecoderRunner | undefined }));
  const sample = (entry: { capacity: number; runner: DecoderRunner | undefined }) => (): number => {
    entry.runner ??= runnerOf(model, entry.capacity);
    return time(entry.runner, 1)();
  };
  return {
    name: "int4, 1 new token, by capacity",
    unit: "ms",
    contenders: [
      { name: `capacity ${longCapacity}`, side: "ours", sample: sample(long) },
      { name: `capacity ${shortCapacity}`, side: "peer", sample: sample(short) },
    ],
  };
}
