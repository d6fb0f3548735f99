// `longwave inspect <model>`: what a model file holds, read from headers alone; no weight is loaded.
import { z } from "zod";
import { type CommandContext, defineCommand } from "../command.ts";
import { describeModel, type ModelDescription, type TensorDescription } from "../model-description.ts";
import { resolveModel } from "../model-folder.ts";
import { formatBytes, formatCount, printable } from "../render/format.ts";
import { table } from "../render/table.ts";

export const inspect = defineCommand({
  name: "inspect",
  summary: "Show what a model file holds",
  description:
    "Reads a checkpoint folder, a safetensors file (or its index of shards), a .gguf or a llama2.c .bin file. Only headers are read.",
  schema: z.object({
    model: z
      .string()
      .min(1)
      .describe("Checkpoint folder, run folder (its latest checkpoint), .safetensors file, index of shards, .gguf or llama2.c .bin file."),
    all: z.boolean().default(false).describe("List every tensor instead of one line for equal tensors of all layers."),
  }),
  positionals: ["model"],
  hasJson: true,
  examples: [
    { command: "inspect runs/a", note: "architecture, parameters by group, shapes" },
    { command: "inspect model.safetensors --all", note: "every tensor on its own line" },
  ],
  run: async ({ model, all }, context) => {
    const description = describeModel(resolveModel(model));
    if (context.json) context.printJson(description);
    else print(description, all, context);
  },
});

const separated = (value: number): string => value.toLocaleString("en-US");

function print(model: ModelDescription, all: boolean, context: CommandContext): void {
  const { colors } = context.stdout;
  const rows = [
    ["model", printable(model.path)],
    ["format", `${model.format}, ${formatBytes(model.bytes)} of tensors`],
    ["parameters", `${separated(model.numParameters)} (${formatCount(model.numParameters)})`],
    ["types", model.dtypes.map(({ dtype, numTensors }) => `${dtype} (${numTensors} tensors)`).join(", ")],
  ];
  if (model.architecture) rows.splice(2, 0, ["architecture", architectureText(model.architecture)]);
  const { facts = [], refused, missing = [], unexpected = [] } = model.family ?? {};
  rows.push(...facts.map(([name, value]) => [name, printable(value)]));
  if (refused !== undefined) rows.push(["not supported", printable(refused)]);
  if (missing.length > 0) rows.push(["missing", printable(listOf(missing))]);
  if (unexpected.length > 0) rows.push(["not in the model", printable(listOf(unexpected))]);
  context.stdout.write(table(rows));
  context.print();
  const groups = model.groups.map(({ name, numParameters, bytes }) => [
    name,
    separated(numParameters),
    `${((100 * numParameters) / Math.max(1, model.numParameters)).toFixed(1)} %`,
    formatBytes(bytes),
  ]);
  context.stdout.write(table(groups, { header: ["group", "parameters", "share", "bytes"], align: "lrrr", colors }));
  context.print();
  const lines = (all ? model.tensors.map((tensor) => ({ ...tensor, count: 1 })) : collapseLayers(model.tensors)).map((tensor) => [
    printable(tensor.name),
    tensor.dtype,
    `[${tensor.shape.join(", ")}]`,
    tensor.count === 1 ? "" : `x ${tensor.count}`,
    separated(tensor.numParameters * tensor.count),
  ]);
  context.stdout.write(table(lines, { header: ["tensor", "type", "shape", "", "parameters"], align: "lllrr", colors }));
}

const listOf = (names: readonly string[]): string => `${names.length}: ${names.slice(0, 8).join(", ")}${names.length > 8 ? ", …" : ""}`;

function architectureText(architecture: NonNullable<ModelDescription["architecture"]>): string {
  const { name, numLayers, width, numHeads, numKeyValueHeads, vocabularySize, maxPositions, tiedEmbeddings } = architecture;
  const heads = numHeads === undefined ? undefined : `${numHeads} heads`;
  const parts = [
    name,
    numLayers === undefined ? undefined : `${numLayers} layers`,
    width === undefined ? undefined : `width ${width}`,
    heads !== undefined && numKeyValueHeads !== undefined && numKeyValueHeads !== numHeads
      ? `${heads} (${numKeyValueHeads} key/value)`
      : heads,
    vocabularySize === undefined ? undefined : `vocabulary ${vocabularySize}`,
    maxPositions === undefined ? undefined : `${maxPositions} positions`,
    tiedEmbeddings === true ? "tied embeddings" : undefined,
  ];
  return printable(parts.filter((part) => part !== undefined).join(", "));
}

/** Tensors that differ in numbers of layers and experts only become one line; a number becomes `*`. Order of first appearance. */
export function collapseLayers(tensors: readonly TensorDescription[]): (TensorDescription & { count: number })[] {
  const lines = new Map<string, TensorDescription & { count: number }>();
  for (const tensor of tensors) {
    const name = tensor.name.replace(/(^|\.)\d+(?=\.)/g, "$1*");
    const key = `${name} ${tensor.dtype} ${tensor.shape.join()}`;
    const line = lines.get(key);
    lines.set(key, line ? { ...line, name, count: line.count + 1 } : { ...tensor, count: 1 });
  }
  return [...lines.values()];
}
