// The cost of calling: a tanh MLP so small that its arithmetic hardly counts, as in control, from TypeScript and back. The peer is
// onnxruntime-node's own session.run in this process, with the same graph.
import { createRequire } from "node:module";
import { bufferFrom } from "../src/runtime/buffer.ts";
import { openBackend } from "../src/runtime/open.ts";
import { compile, spec } from "../src/runtime/program.ts";
import { constant } from "../src/tensor/core.ts";
import { tanh } from "../src/tensor/elementwise.ts";
import { Graph, type Tensor } from "../src/tensor/graph.ts";
import { linear } from "../src/tensor/matmul.ts";
import { toOnnx } from "../src/tensor/onnx.ts";
import type { Benchmark, Case, Context } from "./harness/benchmark.ts";

const [rows, widths] = [8, [4, 64, 64, 2]];
const calls = 5000;

export const tinyProgram: Benchmark = {
  name: "tiny-program",
  summary: "8 x 4 -> 64 -> 64 -> 2 tanh MLP, one call from TypeScript: inputs written, run, outputs read; one thread",
  peer: "(onnxruntime-node, in the same process)",
  seconds: 10,
  prepare,
};

const value = (i: number): number => Math.fround(Math.sin(i * 12.9898) * 0.2);

const layers = widths.slice(1).map((out, i) => ({
  weight: Float32Array.from({ length: out * widths[i] }, (_, j) => value(j + i)),
  bias: Float32Array.from({ length: out }, (_, j) => value(j + 7 * i)),
}));

/** The same graph for both: weights as constants of the program. */
function policy(x: Tensor): Tensor {
  return layers.reduce((hidden, { weight, bias }, i) => {
    const [out, inner] = [widths[i + 1], widths[i]];
    const y = linear(hidden, constant(x.graph, "f32", [out, inner], weight), constant(x.graph, "f32", [out], bias));
    return i < layers.length - 1 ? tanh(y) : y;
  }, x);
}

interface OrtNode {
  InferenceSession: {
    create(
      model: Uint8Array,
      options: object,
    ): Promise<{ run(feeds: Record<string, unknown>): Promise<Record<string, { data: Float32Array }>> }>;
  };
  Tensor: new (type: string, data: Float32Array, shape: readonly number[]) => unknown;
}

async function prepare({ defer }: Context): Promise<Case[]> {
  const { backend } = openBackend({ threads: 1 });
  defer(() => backend.dispose());
  const program = compile(backend, ({ x }) => ({ y: policy(x) }), { x: spec("f32", [rows, widths[0]]) }, { name: "policy", threads: 1 });
  const x = bufferFrom("f32", [rows, widths[0]], new Float32Array(rows * widths[0]));
  const bound = program.bind({ x });
  const y = bound.outputs.y.data as Float32Array;

  const graph = new Graph();
  const input = graph.input("x", "f32", [rows, widths[0]]);
  const model = toOnnx(graph, [policy(input)]);
  const ort = createRequire(import.meta.url)("onnxruntime-node") as OrtNode;
  const session = await ort.InferenceSession.create(model.bytes, { intraOpNumThreads: 1, interOpNumThreads: 1 });
  const [inputName, outputName] = [model.inputs[0].name, model.outputs[0].name];
  const observation = new Float32Array(rows * widths[0]);

  // The sums keep the reading of outputs from being optimised away, and must agree.
  const sums = { ours: 0, theirs: 0 };
  const ours = (): number => {
    sums.ours = 0;
    const start = performance.now();
    for (let call = 0; call < calls; call++) {
      const into = x.data as Float32Array;
      for (let i = 0; i < into.length; i++) into[i] = call + i;
      bound.run();
      for (let i = 0; i < y.length; i++) sums.ours += y[i];
    }
    return ((performance.now() - start) * 1000) / calls;
  };
  const theirs = async (): Promise<number> => {
    sums.theirs = 0;
    const start = performance.now();
    for (let call = 0; call < calls; call++) {
      for (let i = 0; i < observation.length; i++) observation[i] = call + i;
      const feeds = { [inputName]: new ort.Tensor("float32", observation, [rows, widths[0]]) };
      const { data } = (await session.run(feeds))[outputName];
      for (let i = 0; i < data.length; i++) sums.theirs += data[i];
    }
    return ((performance.now() - start) * 1000) / calls;
  };
  return [
    {
      name: "one call",
      unit: "µs",
      contenders: [
        { name: "longwave", side: "ours", sample: ours },
        { name: "onnxruntime-node", side: "peer", sample: theirs },
      ],
      facts: () => [
        `backend ${backend.name}; outputs ${sums.ours === sums.theirs ? "equal bit for bit" : `differ: sums ${sums.ours} and ${sums.theirs}`}`,
      ],
    },
  ];
}
