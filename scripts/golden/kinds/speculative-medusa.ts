// models/speculative/{base,medusa-v1,medusa-v2,medusa-trees}: the target of the drafters, heads in both published layouts, and Medusa's buffers,
// candidates, tree logits and acceptance.

import { Distribution } from "../../../src/decode/sampling/distribution.ts";
import { growTree, independentPaths } from "../../../src/decode/static-tree.ts";
import { sortChoices, type TokenTree, TreeShape } from "../../../src/decode/token-tree.ts";
import { greedyVerifier } from "../../../src/decode/verifiers/greedy.ts";
import { typicalVerifier } from "../../../src/decode/verifiers/typical.ts";
import type { TargetView } from "../../../src/decode/verifiers/verifier.ts";
import { readJson } from "../../../src/formats/json-file.ts";
import { openSafetensors } from "../../../src/formats/safetensors.ts";
import { type LoadedDecoder, loadDecoder } from "../../../src/models/decoder/checkpoint.ts";
import { outputMatrix } from "../../../src/models/decoder/decoder.ts";
import { medusaLogits } from "../../../src/models/heads/medusa.ts";
import { loadMedusa } from "../../../src/models/heads/medusa-checkpoint.ts";
import type { Backend } from "../../../src/runtime/backend.ts";
import { bufferFrom, type TensorBuffer } from "../../../src/runtime/buffer.ts";
import { compile, spec } from "../../../src/runtime/program.ts";
import type { Tensor } from "../../../src/tensor/graph.ts";
import { mapTree } from "../../../src/tensor/tree.ts";
import type { Comparison } from "../compare.ts";
import { greedy, openRunner, sequenceOutputs } from "../decoder-outputs.ts";
import { asInteger, asIntegers, asList, asNumber, asNumbers, asObject, asObjects, asText, type Fields } from "../fields.ts";
import type { Folder } from "../folder.ts";
import { type GoldenCase, type GoldenKind, lazy } from "../kind.ts";

const tolerance = { relative: 1e-4 };

export const kind: GoldenKind = {
  recognise(folder) {
    if (folder.parentName !== "speculative" || !folder.has("expected.json")) return [];
    const make = { base: baseCases, "medusa-v1": headCases, "medusa-v2": headCases, "medusa-trees": treeCases }[folder.name];
    return make ? [{ name: "", files: [...folder.files], cases: () => make(folder) }] : [];
  },
};

const kindOf = (folder: Folder): string => `models/speculative/${folder.name}`;

function tensorsOf(folder: Folder, file: string, name: string): { data: Float32Array; shape: readonly number[] } {
  using source = openSafetensors(folder.file(file));
  const { data, shape } = source.read(name);
  return { data: data as Float32Array, shape };
}

function* baseCases(folder: Folder): Generator<GoldenCase> {
  const expected = asObject(folder.json("expected.json"), "expected.json");
  const ids = asIntegers(expected.ids, "ids");
  const model = lazy(() => loadDecoder(folder.path));
  yield {
    kind: kindOf(folder),
    name: "logits and hidden states",
    run: (comparison, { backend }) => {
      const own = sequenceOutputs(backend, model(), ids);
      comparison.numbers("logits", own.logits, tensorsOf(folder, "expected.safetensors", "logits"), tolerance);
      for (const [i, rows] of [...own.layers, own.hidden].entries())
        comparison.numbers(`hidden_states.${i}`, rows, tensorsOf(folder, "expected.safetensors", `hidden_states.${i}`), tolerance);
    },
  };
  yield {
    kind: kindOf(folder),
    name: "greedy",
    run: async (comparison, { backend }) => {
      const stored = asIntegers(expected.greedy, "greedy");
      using runner = openRunner(backend, model(), ids.length + stored.length);
      const [result] = await greedy(runner, [{ ids, maxNewTokens: stored.length }]);
      comparison.exact("greedy", result.ids, stored);
    },
  };
}

/** Heads of a folder over the final hidden rows of the target beside it. */
function headLogits(backend: Backend, folder: string, base: LoadedDecoder, ids: readonly number[]): Float32Array[] {
  const { hidden } = sequenceOutputs(backend, base, ids);
  const heads = loadMedusa(folder, base.config.vocabSize);
  const matrix = outputMatrix(base.parameters.tree) as TensorBuffer;
  const shape = [ids.length, base.config.width];
  using program = compile(
    backend,
    (inputs) => {
      const { rows, parameters, matrix: shared } = inputs as unknown as { rows: Tensor; parameters: never; matrix: Tensor };
      return { logits: medusaLogits(parameters, rows, { config: base.config, matrix: shared }) };
    },
    { rows: spec("f32", shape), parameters: mapTree(heads.specs, (leaf) => spec("f32", leaf.shape)), matrix: spec("f32", matrix.shape) },
  );
  const bound = program.bind({ rows: bufferFrom("f32", shape, hidden), parameters: heads.parameters.tree, matrix } as never);
  bound.run();
  return (bound.outputs as unknown as { logits: TensorBuffer<"f32">[] }).logits.map(({ data }) => data.slice());
}

const baseOf = (folder: Folder) =>
  lazy(() => ({
    model: loadDecoder(folder.file("../base")),
    ids: asIntegers(asObject(readJson(folder.file("../base/expected.json")), "base").ids, "ids"),
  }));

function* headCases(folder: Folder): Generator<GoldenCase> {
  const base = baseOf(folder);
  yield {
    kind: kindOf(folder),
    name: "logits of all heads",
    run: (comparison, { backend }) => {
      const { model, ids } = base();
      const stored = tensorsOf(folder, "expected.safetensors", "medusa_logits");
      const own = headLogits(backend, folder.path, model, ids);
      comparison.exact("number of heads", own.length, stored.shape[0]);
      const size = stored.data.length / stored.shape[0];
      for (const [k, logits] of own.entries())
        comparison.numbers(`medusa_logits[${k}]`, logits, stored.data.subarray(k * size, (k + 1) * size), tolerance);
      const expected = asObject(folder.json("expected.json"), "expected.json");
      const best = own.map((logits) => bestOf(logits.subarray(logits.length - model.config.vocabSize), 3));
      comparison.exact("top3LastPosition", best, expected.top3LastPosition);
    },
  };
}

const bestOf = (logits: Float32Array, count: number): number[] =>
  Array.from(logits, (x, id) => ({ x, id }))
    .sort((a, b) => b.x - a.x)
    .slice(0, count)
    .map(({ id }) => id);

function* treeCases(folder: Folder): Generator<GoldenCase> {
  const expected = asObject(folder.json("expected.json"), "expected.json");
  const base = baseOf(folder);
  const trees = asObjects(expected.cases, "cases");
  for (const [index, fields] of trees.entries()) {
    yield {
      kind: kindOf(folder),
      name: `buffers, candidates and tree logits of ${asText(fields.name, `cases[${index}].name`)}`,
      run: (comparison, { backend }) => runTree(folder, fields, base(), backend, comparison),
    };
  }
  const growth = asObject(expected.greedyGrowth, "greedyGrowth");
  yield {
    kind: kindOf(folder),
    name: "greedy growth",
    run: (comparison) => {
      const accuracies = asList(growth.accuracies, "accuracies").map((row, i) => Array.from(asNumbers(row, `accuracies[${i}]`).data));
      const grown = growTree(independentPaths(accuracies), {
        maxNodes: asInteger(growth.nodes, "nodes"),
        maxDepth: asInteger(growth.maxDepth, "maxDepth"),
        maxChildren: asInteger(growth.maxChildren, "maxChildren"),
      });
      comparison.exact("order", grown.choices, growth.order);
    },
  };
  const acceptance = asObject(folder.json("acceptance.json"), "acceptance.json");
  for (const [index, fields] of asObjects(acceptance.cases, "cases").entries()) {
    const tree = trees.find(({ name }) => name === fields.tree) ?? {};
    yield { kind: kindOf(folder), name: `acceptance ${index}`, run: (comparison) => runAcceptance(fields, tree, comparison) };
  }
}

const listsOf = (value: unknown, place: string): (readonly number[])[] =>
  asList(value, place).map((item, i) => asIntegers(item, `${place}[${i}]`));

function runTree(
  folder: Folder,
  fields: Fields,
  { model, ids }: { model: LoadedDecoder; ids: readonly number[] },
  backend: Backend,
  comparison: Comparison,
): void {
  const choices = sortChoices(listsOf(fields.choices, "choices"));
  const shape = TreeShape.fromChoices(choices);
  const { size } = shape;
  const mask = Array.from({ length: size }, (_, i) =>
    Array.from(shape.bias.data.subarray(i * size, (i + 1) * size), (x) => Number(x === 0)),
  );
  comparison.exact("attentionMask", mask, fields.attentionMask);
  comparison.exact("positionIds", Array.from(shape.depths), fields.positionIds);
  comparison.exact("treeIndices", [0, ...choices.map((path) => 1 + 10 * (path.length - 1) + (path.at(-1) as number))], fields.treeIndices);
  const path = new Int32Array(size);
  const paths = shape.leaves.map((leaf) => Array.from(path.subarray(0, shape.pathTo(leaf, path))).join()).sort();
  const stored = listsOf(fields.retrieveIndices, "retrieveIndices").map((nodes) => nodes.filter((node) => node >= 0).join());
  comparison.exact("retrieveIndices", paths, stored.toSorted());
  // Candidates: the root is the target's own token, the nodes are the best guesses of the heads.
  const { logits } = sequenceOutputs(backend, model, ids);
  const { vocabSize } = model.config;
  const root = bestOf(logits.subarray(logits.length - vocabSize), 1)[0];
  const guesses = headLogits(backend, folder.file("../medusa-v1"), model, ids).map((all) =>
    bestOf(all.subarray(all.length - vocabSize), 10),
  );
  const tokens = [root, ...choices.map((choice) => guesses[choice.length - 1][choice.at(-1) as number])];
  comparison.exact("treeCandidates", tokens, fields.treeCandidates);
  using runner = openRunner(backend, model, ids.length + size);
  runner.append(0, ids);
  const own = runner.appendTree(0, shape, tokens).logits;
  comparison.numbers("tree_logits", own, tensorsOf(folder, `${asText(fields.name, "name")}.safetensors`, "tree_logits"), tolerance);
}

function runAcceptance(fields: Fields, tree: Fields, comparison: Comparison): void {
  const shape = TreeShape.fromChoices(listsOf(tree.choices, "choices"));
  const nodeTokens = asIntegers(fields.nodeTokens, "nodeTokens");
  const rows = asList(fields.nodeLogits, "nodeLogits").map((row, i) => Float32Array.from(asNumbers(row, `nodeLogits[${i}]`).data));
  const temperature = asNumber(fields.temperature, "temperature");
  const target: TargetView = {
    distribution: (node) => new Distribution().setDense(softmax(rows[node], temperature)),
    argmax: (node) => bestOf(rows[node], 1)[0],
  };
  const isGreedy = temperature === 0;
  const options = { threshold: asNumber(fields.posteriorThreshold, "threshold"), alpha: asNumber(fields.posteriorAlpha, "alpha") };
  const drafted: TokenTree = { shape, ids: Int32Array.from(nodeTokens) };
  const verifier = isGreedy ? greedyVerifier : typicalVerifier(options);
  const { node } = verifier.verify(drafted, target, { accept: () => false, draw: () => -1 });
  const path = new Int32Array(shape.size);
  const accepted = Array.from(path.subarray(0, shape.pathTo(node, path)));
  const best = listsOf(tree.retrieveIndices, "retrieveIndices")[asInteger(fields.bestCandidate, "bestCandidate")];
  const stored = best.slice(0, asInteger(fields.acceptLength, "acceptLength") + 1);
  // Medusa pads short paths with token 0, and takes the padding for drafts: what it then accepts is no path of the tree.
  if (stored.includes(-1)) {
    comparison.exact("accepted before the padding", accepted.length <= stored.length, true);
    return;
  }
  comparison.exact("length of the accepted path", accepted.length, stored.length);
  // Siblings with the same token have logits of their own here, which no model has: when greedy, either path is as good.
  const tokensOf = (nodes: readonly number[]): number[] => nodes.map((at) => nodeTokens[at]);
  if (!isGreedy) comparison.exact("tokens of the accepted path", tokensOf(accepted), tokensOf(stored));
}

function softmax(logits: Float32Array, temperature: number): number[] {
  const most = Math.max(...logits);
  const weights = Array.from(logits, (x) => Math.exp((x - most) / (temperature || 1)));
  const total = weights.reduce((a, b) => a + b);
  return weights.map((weight) => weight / total);
}
