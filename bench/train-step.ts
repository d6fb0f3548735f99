// One step of training a small GPT: forward, backward, clipping by global norm, AdamW. The peer is PyTorch with the same architecture
// from the same weights on the same batch; the losses of the first steps are compared before anything is timed.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { writeSafetensors } from "../src/formats/safetensors-write.ts";
import { allocateDecoder } from "../src/models/decoder/checkpoint.ts";
import { decoderConfig } from "../src/models/decoder/config.ts";
import { type DecoderTensors, languageModelLoss } from "../src/models/decoder/decoder.ts";
import { estimateDecoder } from "../src/models/decoder/estimate.ts";
import { initializeParameters } from "../src/nn/parameter.ts";
import { clipFactor, createNorm, createOptimizer } from "../src/optim/index.ts";
import type { Backend } from "../src/runtime/backend.ts";
import { allocate } from "../src/runtime/buffer.ts";
import { allocateFlat } from "../src/runtime/flat.ts";
import { openBackend } from "../src/runtime/open.ts";
import { compile, spec } from "../src/runtime/program.ts";
import { gradients } from "../src/tensor/gradient.ts";
import type { Tensor } from "../src/tensor/graph.ts";
import { mapTree } from "../src/tensor/tree.ts";
import { type Benchmark, type Case, type Context, meanMs } from "./harness/benchmark.ts";

const [batch, time, vocabSize] = [8, 256, 4096];
const settings = { learningRate: 1e-3, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, maxNorm: 1 };
const config = decoderConfig({
  vocabSize,
  width: 384,
  layers: 6,
  heads: 6,
  contextLength: time,
  norm: "layer",
  position: "learned",
  mlp: "plain",
  activation: "geluTanh",
  qkvBias: true,
  outputBias: true,
  mlpBias: true,
  tieEmbeddings: true,
});
const stepsPerSample = 2;
const comparedSteps = 3;

export const trainStep: Benchmark = {
  name: "train-step",
  summary: "GPT, 6 layers, width 384, 8 x 256 tokens, vocabulary 4,096: gradients, clipping and AdamW in float32",
  peer: "torch, numpy and safetensors",
  seconds: 75,
  prepare,
};

/** Ids that repeat a pattern with noise: something to learn, the same on every machine. */
function ids(): Int32Array {
  let state = 1;
  const next = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
  return Int32Array.from({ length: batch * (time + 1) }, (_, i) => (next() < 0.5 ? i % 97 : Math.floor(next() * vocabSize)));
}

function ourStep(backend: Backend, sequence: Int32Array) {
  const { specs, parameters } = allocateDecoder(config);
  initializeParameters(specs as never, parameters, 0);
  const flatGradients = allocateFlat(specs, parameters.layout);
  const program = compile(
    backend,
    ({ parameters, ids, labels }: { parameters: DecoderTensors; ids: Tensor; labels: Tensor }) => {
      const { loss } = languageModelLoss(config, parameters, { ids, labels });
      return { loss, gradients: gradients(loss, parameters as never) };
    },
    {
      parameters: mapTree(specs, ({ shape }) => spec("f32", shape)),
      ids: spec("i32", [batch, time]),
      labels: spec("i32", [batch, time]),
    } as never,
    { name: "training step" },
  );
  const [inputs, labels, loss] = [allocate("i32", [batch, time]), allocate("i32", [batch, time]), allocate("f32", [])];
  for (let row = 0; row < batch; row++) {
    inputs.data.set(sequence.subarray(row * (time + 1), row * (time + 1) + time), row * time);
    labels.data.set(sequence.subarray(row * (time + 1) + 1, (row + 1) * (time + 1)), row * time);
  }
  const bound = program.bind(
    { parameters: parameters.tree, ids: inputs, labels } as never,
    { loss, gradients: flatGradients.tree } as never,
  );
  const { learningRate, beta1, beta2, epsilon, weightDecay, maxNorm } = settings;
  const optimizer = createOptimizer(
    backend,
    { kind: "adamw", learningRate, beta1, beta2, epsilon, weightDecay },
    parameters,
    flatGradients,
    { plain: { weightDecay: 0 } },
  );
  const norm = createNorm(backend, flatGradients);
  const step = (): number => {
    bound.run();
    optimizer.step({ gradientScale: clipFactor(norm.compute(), maxNorm) });
    return loss.data[0];
  };
  return { parameters, step, nodeCount: program.nodeCount };
}

async function prepare({ threads, peers, cacheFolder, thorough, defer }: Context): Promise<Case[]> {
  const { backend } = openBackend({ threads });
  defer(() => backend.dispose());
  const sequence = ids();
  const { parameters, step, nodeCount } = ourStep(backend, sequence);
  const entry: Case = {
    name: "one step",
    unit: "ms",
    contenders: [{ name: "longwave fp32", side: "ours", sample: () => meanMs(stepsPerSample, step) }],
  };
  const facts = [`${nodeCount} ONNX nodes, ${parameters.buffer.data.length} parameters`];
  if (peers) {
    const weights = join(cacheFolder, "train-step.safetensors");
    const tensors = [...parameters.leaves].map(([name, { shape, data }]) => ({ name, dtype: "f32" as const, shape, data }));
    writeSafetensors(weights, tensors);
    const peer = peers("train_step.py");
    await peer.call("load", { weights, ids: Array.from(sequence), batch, time, heads: config.heads, layers: config.layers, ...settings });
    const theirs = await peer.call<number[]>("losses", { steps: comparedSteps });
    const ours = Array.from({ length: comparedSteps }, step);
    const differences = ours.map((loss, i) => Math.abs(loss - theirs[i]).toExponential(0));
    facts.push(
      `losses of the first steps: ${ours.map((loss) => loss.toFixed(4)).join(", ")}; difference from PyTorch ${differences.join(", ")}`,
    );
    const contender = (name: string, mode: string, note?: string) => ({
      name,
      side: "peer" as const,
      note,
      sample: () => peer.call<number>("step", { mode, steps: stepsPerSample }),
    });
    entry.contenders.push(contender("PyTorch fp32", "fp32", "eager, SDPA, fused AdamW"));
    if (thorough) entry.contenders.push(contender("PyTorch fp32 compiled", "compiled", "torch.compile"));
    // Emulated, a step takes minutes and says nothing.
    if (hasBf16())
      entry.contenders.push(contender("PyTorch bf16", "bf16", "eager, bf16 autocast: another precision, stated for comparison"));
  }
  const flops = estimateDecoder(config, time).trainingFlopsPerToken * batch * time;
  facts.push(`${(flops / 1e9).toFixed(0)} GFLOP a step`);
  return [{ ...entry, facts: () => facts }];
}

/** Whether the processor multiplies bfloat16. Taken to be so where the flags cannot be read. */
function hasBf16(): boolean {
  try {
    return /^flags.*\b(avx512_bf16|amx_bf16)\b/m.test(readFileSync("/proc/cpuinfo", "utf8"));
  } catch {
    return true;
  }
}
