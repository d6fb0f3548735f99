import { fromBinary } from "@bufbuild/protobuf";
import { AttributeProto_AttributeType as AttributeType, TensorProto_DataLocation as DataLocation, ModelProtoSchema } from "onnx-buf";
import { expect, it } from "vitest";
import { type OnnxGraph, type OnnxNode, onnxBytes } from "./onnx-proto.ts";

it("every field is read back by the code that is generated from onnx.proto", () => {
  const node = (attribute: OnnxNode["attribute"], more: Partial<OnnxNode> = {}): OnnxNode => ({
    name: "n",
    opType: "Op",
    domain: "",
    input: ["a", "", "b"],
    output: ["c"],
    attribute,
    ...more,
  });
  const body: OnnxGraph = { name: "body", node: [node([])], initializer: [], input: [], output: [] };
  const graph: OnnxGraph = {
    name: "graph",
    node: [
      node([
        ["axis", -1],
        ["large", 2 ** 40],
        ["epsilon", { float: 0.1 }],
        ["mode", "größer"],
        ["axes", [0, -2, 3]],
        ["none", []],
        ["body", body],
      ]),
      node([], { domain: "com.microsoft" }),
    ],
    initializer: [
      { name: "small", dims: [2, 1], dataType: 1, data: new Uint8Array(Float32Array.of(1.5, -2).buffer) },
      { name: "scalar", dims: [], dataType: 7, data: new Uint8Array(8) },
      { name: "far", dims: [300, 2], dataType: 11, data: { location: ".", length: 4800 } },
    ],
    input: [{ name: "a", elemType: 1, shape: ["B", 3] }],
    output: [{ name: "c", elemType: 9, shape: [] }],
  };
  const opsets = [
    { domain: "", version: 23 },
    { domain: "com.microsoft", version: 1 },
  ];
  const model = fromBinary(ModelProtoSchema, onnxBytes({ producer: "longwave", opsets, graph }));
  expect(model.$unknown).toBeUndefined();
  expect(model).toMatchObject({ irVersion: 10n, producerName: "longwave" });
  expect(model.opsetImport.map(({ domain, version }) => [domain, version])).toEqual([
    ["", 23n],
    ["com.microsoft", 1n],
  ]);
  const read = model.graph!;
  const [first, second] = read.node;
  expect([first.name, first.opType, first.domain, first.input, first.output]).toEqual(["n", "Op", "", ["a", "", "b"], ["c"]]);
  expect(second.domain).toBe("com.microsoft");
  const { INT, FLOAT, STRING, INTS, GRAPH } = AttributeType;
  expect(first.attribute.map(({ name, type }) => [name, type])).toEqual([
    ["axis", INT],
    ["large", INT],
    ["epsilon", FLOAT],
    ["mode", STRING],
    ["axes", INTS],
    ["none", INTS],
    ["body", GRAPH],
  ]);
  const [axis, large, epsilon, mode, axes, none, inner] = first.attribute;
  expect([axis.i, large.i, epsilon.f, axes.ints, none.ints]).toEqual([-1n, 2n ** 40n, Math.fround(0.1), [0n, -2n, 3n], []]);
  expect(new TextDecoder().decode(mode.s)).toBe("größer");
  expect([inner.g!.name, inner.g!.node.length]).toEqual(["body", 1]);
  const [small, scalar, far] = read.initializer;
  expect([small.name, small.dims, small.dataType, [...new Float32Array(small.rawData!.slice().buffer)]]).toEqual([
    "small",
    [2n, 1n],
    1,
    [1.5, -2],
  ]);
  expect([scalar.dims, scalar.dataLocation]).toEqual([[], DataLocation.DEFAULT]);
  expect([far.dims, far.dataType, far.dataLocation, far.rawData?.length ?? 0]).toEqual([[300n, 2n], 11, DataLocation.EXTERNAL, 0]);
  expect(far.externalData.map(({ key, value }) => [key, value])).toEqual([
    ["location", "."],
    ["offset", "0"],
    ["length", "4800"],
  ]);
  const shapeOf = ({ type }: (typeof read.input)[number]): unknown => {
    const tensor = type!.value.case === "tensorType" ? type!.value.value : undefined;
    return [tensor?.elemType, tensor?.shape?.dim.map(({ value }) => [value.case, value.value])];
  };
  expect([read.input[0].name, shapeOf(read.input[0])]).toEqual([
    "a",
    [
      1,
      [
        ["dimParam", "B"],
        ["dimValue", 3n],
      ],
    ],
  ]);
  expect([read.output[0].name, shapeOf(read.output[0])]).toEqual(["c", [9, []]]);
});
