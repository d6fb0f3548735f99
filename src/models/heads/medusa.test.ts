// Heads against plain arithmetic; both published layouts to disk and back; files and targets that do not fit.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openSafetensors } from "../../formats/safetensors.ts";
import { writeSafetensors } from "../../formats/safetensors-write.ts";
import type { Backend } from "../../runtime/backend.ts";
import { bufferFrom, type TensorBuffer } from "../../runtime/buffer.ts";
import { openBackend } from "../../runtime/open.ts";
import { compile, spec } from "../../runtime/program.ts";
import type { DType } from "../../tensor/dtype.ts";
import type { Tensor } from "../../tensor/graph.ts";
import { uniforms } from "../../tensor/testing/reference.ts";
import { mapTree } from "../../tensor/tree.ts";
import { allocateDecoder } from "../decoder/checkpoint.ts";
import { decoderConfig } from "../decoder/config.ts";
import { outputMatrix } from "../decoder/decoder.ts";
import { quantiseDecoder } from "../decoder/quantise.ts";
import {
  checkMedusaTarget,
  createMedusa,
  type MedusaHead,
  type MedusaHeads,
  type MedusaOptions,
  medusaConfig,
  medusaLogits,
} from "./medusa.ts";
import { loadMedusa, saveMedusa } from "./medusa-checkpoint.ts";

let backend: Backend;
let folder: string;
beforeAll(() => {
  backend = openBackend({ threads: 1 }).backend;
  folder = mkdtempSync(join(tmpdir(), "longwave-medusa-"));
});
afterAll(() => {
  backend.dispose();
  rmSync(folder, { recursive: true });
});

const [width, vocabSize] = [16, 24];
const target = allocateDecoder(decoderConfig({ vocabSize, width, layers: 1, heads: 2, contextLength: 16 }));
const next = uniforms(2);
const scramble = (data: Float32Array): void => {
  for (let i = 0; i < data.length; i++) data[i] = next() - 0.5;
};
scramble(target.parameters.buffer.data as Float32Array);

function randomHeads(options: MedusaOptions): MedusaHeads {
  const heads = createMedusa(target, options);
  for (const { data } of heads.parameters.leaves.values()) scramble(data as Float32Array);
  return heads;
}

const rows = bufferFrom(
  "f32",
  [3, width],
  Float32Array.from({ length: 3 * width }, () => next() - 0.5),
);

function logitsOf({ parameters }: MedusaHeads): Float32Array[] {
  const declare = (tree: unknown) => mapTree(tree, ({ dtype, shape }) => spec(dtype as DType, shape));
  const matrix = outputMatrix(target.parameters.tree) as TensorBuffer;
  const program = compile(
    backend,
    (inputs) => {
      const { rows: x, heads, matrix: shared } = inputs as unknown as { rows: Tensor; heads: never; matrix: Tensor };
      return { logits: medusaLogits(heads, x, { config: target.config, matrix: shared }) };
    },
    { rows: spec("f32", [3, width]), heads: declare(parameters.tree), matrix: declare(matrix) },
  );
  try {
    const { logits } = program.run({ rows, heads: parameters.tree, matrix } as never) as unknown as { logits: TensorBuffer<"f32">[] };
    return logits.map(({ data }) => data.slice());
  } finally {
    program.dispose();
  }
}

/** The same in loops. */
function expectedLogits({ parameters }: MedusaHeads): number[][] {
  const matrix = (w: ArrayLike<number>, x: readonly number[], out: number): number[] =>
    Array.from({ length: out }, (_, o) => x.reduce((sum, value, i) => sum + value * w[o * x.length + i], 0));
  return (parameters.tree.heads as MedusaHead<TensorBuffer>[]).map(({ blocks, unembedding }) =>
    [0, 1, 2].flatMap((row) => {
      let x = Array.from(rows.data.subarray(row * width, (row + 1) * width));
      for (const { weight, bias } of blocks) {
        const y = matrix(weight.data as Float32Array, x, width).map((value, i) => value + Number(bias.data[i]));
        x = x.map((value, i) => value + y[i] / (1 + Math.exp(-y[i])));
      }
      return matrix((unembedding?.weight ?? (outputMatrix(target.parameters.tree) as TensorBuffer)).data as Float32Array, x, vocabSize);
    }),
  );
}

describe.each<[string, MedusaOptions]>([
  ["own unembeddings (v1)", { heads: 3 }],
  ["two layers", { heads: 2, layers: 2 }],
  ["shared unembedding (v2)", { heads: 4, unembedding: "shared" }],
])("%s", (_, options) => {
  test("logits are those of the formula", () => {
    const heads = randomHeads(options);
    const [own, expected] = [logitsOf(heads), expectedLogits(heads)];
    expect(own.length).toBe(options.heads);
    for (const [k, logits] of own.entries()) for (const [i, x] of logits.entries()) expect(x).toBeCloseTo(expected[k][i], 4);
  });

  test("a folder gives back what went in, under the published names", () => {
    const heads = randomHeads(options);
    const choices = [[0], [1], [0, 0]];
    saveMedusa(folder, heads, { base: "some/model", tokenizerHash: "abc", choices });
    const loaded = loadMedusa(folder);
    expect(loaded.config).toEqual(heads.config);
    expect(loaded.info).toMatchObject({ base: "some/model", tokenizerHash: "abc", choices });
    expect(loaded.parameters.buffer.data).toEqual(heads.parameters.buffer.data);
    using source = openSafetensors(join(folder, "medusa_lm_head.safetensors"));
    const names = [...source.entries.keys()];
    expect(names).toContain("0.0.linear.weight");
    expect(names.includes(`0.${options.layers ?? 1}.weight`)).toBe(options.unembedding !== "shared");
    const { version, medusa_num_heads: numHeads } = JSON.parse(readFileSync(join(folder, "config.json"), "utf8"));
    expect([version, numHeads]).toEqual([options.unembedding === "shared" ? "2" : undefined, options.heads]);
  });
});

test("new heads guess what the model itself would say", () => {
  const heads = createMedusa(target, { heads: 2 });
  const own = logitsOf(heads);
  const expected = logitsOf(createMedusa(target, { heads: 2, unembedding: "shared" }));
  for (const [k, logits] of own.entries()) expect(logits).toEqual(expected[k]);
  expect(own[0]).toEqual(own[1]);
});

describe("what does not fit is told", () => {
  test("targets", () => {
    const config = medusaConfig(target.config);
    expect(() => checkMedusaTarget(config, { ...target.config, width: 32 })).toThrow("width 32");
    expect(() => checkMedusaTarget(config, { ...target.config, vocabSize: 25 })).toThrow("vocabulary of 25");
    expect(() => checkMedusaTarget(config, target.config, { heads: "a", target: "b" })).toThrow("tokenizer");
    expect(() => checkMedusaTarget(config, target.config, { target: "b" })).not.toThrow();
    expect(() => createMedusa(quantiseDecoder(target, { blockSize: 16 }))).toThrow("quantised");
    expect(() => medusaConfig(target.config, { heads: 0 })).toThrow("heads");
  });

  test("files", () => {
    const path = join(folder, "medusa_lm_head.safetensors");
    const zeros = (name: string, shape: number[]) => ({
      name,
      dtype: "f32" as const,
      shape,
      data: new Float32Array(shape.reduce((a, b) => a * b)),
    });
    const write = (tensors: Parameters<typeof writeSafetensors>[1], config = "{}"): void => {
      writeSafetensors(path, tensors);
      writeFileSync(join(folder, "config.json"), config);
    };
    write([zeros("x", [2])]);
    expect(() => loadMedusa(folder)).toThrow('"0.0.linear.weight"');
    write([zeros("0.0.linear.weight", [4, 4]), zeros("0.0.linear.bias", [4])]);
    expect(() => loadMedusa(folder)).toThrow("vocab_size");
    expect(loadMedusa(folder, 9).config).toMatchObject({ heads: 1, layers: 1, unembedding: "shared", width: 4, vocabSize: 9 });
    write([zeros("0.0.linear.weight", [4, 4])], '{"vocab_size": 9}');
    expect(() => loadMedusa(folder)).toThrow('"0.0.linear.bias"');
    write([zeros("0.0.linear.weight", [4, 4]), zeros("0.0.linear.bias", [5])], '{"vocab_size": 9}');
    expect(() => loadMedusa(folder)).toThrow("0.0.linear.bias");
    write([zeros("0.0.linear.weight", [4, 4]), zeros("0.0.linear.bias", [4])], '{"medusa_choices": [[0, -1]]}');
    expect(() => loadMedusa(folder)).toThrow("medusa_choices");
    rmSync(path);
    writeFileSync(join(folder, "medusa_lm_head.pt"), "");
    // The file of older uploads.
    expect(() => loadMedusa(folder)).toThrow("an empty file");
    expect(() => loadMedusa(join(folder, "nowhere"))).toThrow("got none");
  });
});
