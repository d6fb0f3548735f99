// The messages of onnx.proto that a program is made of, and their bytes. Written field by field: the library's descriptions of the whole
// format cost a process 70 ms before its first program.
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { invariant } from "../base/errors.ts";
import type { Shape } from "./graph.ts";

export interface OnnxNode {
  readonly name: string;
  readonly opType: string;
  readonly domain: string;
  readonly input: readonly string[];
  readonly output: readonly string[];
  readonly attribute: readonly (readonly [name: string, value: OnnxAttributeValue])[];
}

/** An ONNX FLOAT attribute; a plain number becomes an INT. */
export interface Float {
  readonly float: number;
}
export type OnnxAttributeValue = number | Float | string | readonly number[] | OnnxGraph;

export interface OnnxTensor {
  readonly name: string;
  readonly dims: readonly number[];
  /** TensorProto.DataType. */
  readonly dataType: number;
  /** Bytes, or where else they are. */
  readonly data: Uint8Array | { readonly location: string; readonly length: number };
}

export interface OnnxValue {
  readonly name: string;
  readonly elemType: number;
  readonly shape: Shape;
}

export interface OnnxGraph {
  readonly name: string;
  readonly node: readonly OnnxNode[];
  readonly initializer: readonly OnnxTensor[];
  readonly input: readonly OnnxValue[];
  readonly output: readonly OnnxValue[];
}

export interface OnnxFile {
  readonly producer: string;
  readonly opsets: readonly { readonly domain: string; readonly version: number }[];
  readonly graph: OnnxGraph;
}

/** The IR version of ONNX 1.16 and later. */
const irVersion = 10;
const attributeType = { float: 1, int: 2, string: 3, graph: 5, ints: 7 } as const;

/** The bytes of a TensorProto. */
export function tensorBytes(tensor: OnnxTensor): Uint8Array {
  const out = new Writer();
  writeTensor(out, tensor);
  return out.bytes();
}

/** The bytes of a model file. */
export function onnxBytes({ producer, opsets, graph }: OnnxFile): Uint8Array {
  const out = new Writer();
  out.int(1, irVersion);
  out.text(2, producer);
  out.message(7, () => writeGraph(out, graph));
  for (const { domain, version } of opsets)
    out.message(8, () => {
      out.text(1, domain);
      out.int(2, version);
    });
  return out.bytes();
}

function writeGraph(out: Writer, { name, node, initializer, input, output }: OnnxGraph): void {
  for (const one of node) out.message(1, () => writeNode(out, one));
  out.text(2, name);
  for (const one of initializer) out.message(5, () => writeTensor(out, one));
  for (const one of input) out.message(11, () => writeValue(out, one));
  for (const one of output) out.message(12, () => writeValue(out, one));
}

function writeNode(out: Writer, { name, opType, domain, input, output, attribute }: OnnxNode): void {
  for (const one of input) out.text(1, one);
  for (const one of output) out.text(2, one);
  out.text(3, name);
  out.text(4, opType);
  for (const [key, value] of attribute) out.message(5, () => writeAttribute(out, key, value));
  if (domain) out.text(7, domain);
}

function writeAttribute(out: Writer, name: string, value: OnnxAttributeValue): void {
  out.text(1, name);
  const type = writeAttributeValue(out, value);
  out.int(20, attributeType[type]);
}

function writeAttributeValue(out: Writer, value: OnnxAttributeValue): keyof typeof attributeType {
  if (typeof value === "number") {
    out.int(3, value);
    return "int";
  }
  if (typeof value === "string") {
    out.text(4, value);
    return "string";
  }
  if ("node" in value) {
    out.message(6, () => writeGraph(out, value));
    return "graph";
  }
  if ("float" in value) {
    out.float(2, value.float);
    return "float";
  }
  for (const one of value) out.int(8, one);
  return "ints";
}

function writeTensor(out: Writer, { name, dims, dataType, data }: OnnxTensor): void {
  for (const dim of dims) out.int(1, dim);
  out.int(2, dataType);
  out.text(8, name);
  if (data instanceof Uint8Array) {
    out.binary(9, data);
    return;
  }
  for (const [key, value] of Object.entries({ location: data.location, offset: "0", length: String(data.length) }))
    out.message(13, () => {
      out.text(1, key);
      out.text(2, value);
    });
  // EXTERNAL
  out.int(14, 1);
}

function writeValue(out: Writer, { name, elemType, shape }: OnnxValue): void {
  out.text(1, name);
  // TypeProto > tensor_type > elem_type, shape > dim > dim_value or dim_param
  out.message(2, () =>
    out.message(1, () => {
      out.int(1, elemType);
      out.message(2, () => {
        for (const dim of shape)
          out.message(1, () => {
            if (typeof dim === "number") out.int(1, dim);
            else out.text(2, dim);
          });
      });
    }),
  );
}

/** Fields of protobuf messages. */
class Writer {
  readonly #writer = new BinaryWriter();

  int(field: number, value: number): void {
    invariant(Number.isSafeInteger(value), `${value} is no whole number`);
    this.#writer.tag(field, WireType.Varint);
    if (value >= 0 && value < 2 ** 32) this.#writer.uint32(value);
    else this.#writer.int64(value);
  }

  float(field: number, value: number): void {
    this.#writer.tag(field, WireType.Bit32).float(value);
  }

  text(field: number, value: string): void {
    this.#writer.tag(field, WireType.LengthDelimited).string(value);
  }

  binary(field: number, value: Uint8Array): void {
    this.#writer.tag(field, WireType.LengthDelimited).bytes(value);
  }

  message(field: number, write: () => void): void {
    this.#writer.tag(field, WireType.LengthDelimited).fork();
    write();
    this.#writer.join();
  }

  bytes(): Uint8Array {
    return this.#writer.finish();
  }
}
