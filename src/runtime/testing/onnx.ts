// Small ONNX models for the tests of the backends, written directly with onnx-buf.
import { create, toBinary } from "@bufbuild/protobuf";
import {
  type AttributeProto,
  AttributeProtoSchema,
  AttributeProto_AttributeType as AttributeType,
  TensorProto_DataLocation as DataLocation,
  ModelProtoSchema,
  NodeProtoSchema,
  StringStringEntryProtoSchema,
  TensorProtoSchema,
  ValueInfoProtoSchema,
} from "onnx-buf";
import { bytesPerElement, type DType, onnxType } from "../../tensor/dtype.ts";
import { sizeOf, type TensorBuffer } from "../buffer.ts";

/** A number is an integer attribute; a float is `{ float: 1e-5 }`. */
export type Attribute = number | number[] | string | { float: number };

export interface NodeSpec {
  op: string;
  inputs: string[];
  outputs: string[];
  domain?: "com.microsoft" | "longwave";
  attributes?: Record<string, Attribute>;
}

export interface ValueSpec {
  dtype?: DType;
  /** A string is a symbolic dimension. */
  shape: readonly (number | string)[];
}

export interface ModelSpec {
  inputs: Record<string, ValueSpec>;
  outputs: Record<string, ValueSpec>;
  nodes: NodeSpec[];
  /** Initializers whose bytes lie in the model. */
  constants?: Record<string, TensorBuffer>;
  /** Initializers with external data, to be handed over as shared initializers. */
  shared?: Record<string, ValueSpec>;
  /** File that the external data names. */
  location?: string;
}

/** The bytes of a ModelProto (opset 21, com.microsoft 1, longwave 1). */
export function onnxModel(spec: ModelSpec): Uint8Array<ArrayBuffer> {
  const shared = Object.entries(spec.shared ?? {}).map(([name, { dtype = "f32", shape }]) =>
    create(TensorProtoSchema, {
      name,
      dims: shape.map(BigInt),
      dataType: onnxType[dtype],
      dataLocation: DataLocation.EXTERNAL,
      externalData: [
        ["location", spec.location ?? "."],
        ["offset", "0"],
        ["length", String(sizeOf(shape as number[]) * bytesPerElement[dtype])],
      ].map(([key, value]) => create(StringStringEntryProtoSchema, { key, value })),
    }),
  );
  const constants = Object.entries(spec.constants ?? {}).map(([name, { dtype, shape, data }]) =>
    create(TensorProtoSchema, {
      name,
      dims: shape.map(BigInt),
      dataType: onnxType[dtype],
      rawData: new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice(),
    }),
  );
  const model = create(ModelProtoSchema, {
    irVersion: 10n,
    opsetImport: [
      { domain: "", version: 21n },
      { domain: "com.microsoft", version: 1n },
      { domain: "longwave", version: 1n },
    ],
    graph: {
      name: "test",
      node: spec.nodes.map(({ op, inputs, outputs, domain = "", attributes = {} }, index) =>
        create(NodeProtoSchema, {
          opType: op,
          domain,
          name: `${op}_${index}`,
          input: inputs,
          output: outputs,
          attribute: Object.entries(attributes).map(([name, value]) => attribute(name, value)),
        }),
      ),
      initializer: [...constants, ...shared],
      input: Object.entries(spec.inputs).map(valueInfo),
      output: Object.entries(spec.outputs).map(valueInfo),
    },
  });
  return new Uint8Array(toBinary(ModelProtoSchema, model));
}

function valueInfo([name, { dtype = "f32", shape }]: [string, ValueSpec]) {
  const dim = shape.map((d) => ({
    value: typeof d === "string" ? { case: "dimParam" as const, value: d } : { case: "dimValue" as const, value: BigInt(d) },
  }));
  return create(ValueInfoProtoSchema, {
    name,
    type: { value: { case: "tensorType", value: { elemType: onnxType[dtype], shape: { dim } } } },
  });
}

function attribute(name: string, value: Attribute): AttributeProto {
  if (typeof value === "number") return create(AttributeProtoSchema, { name, type: AttributeType.INT, i: BigInt(value) });
  if (typeof value === "string")
    return create(AttributeProtoSchema, { name, type: AttributeType.STRING, s: new TextEncoder().encode(value) });
  if (Array.isArray(value)) return create(AttributeProtoSchema, { name, type: AttributeType.INTS, ints: value.map(BigInt) });
  return create(AttributeProtoSchema, { name, type: AttributeType.FLOAT, f: value.float });
}
