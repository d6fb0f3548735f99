// The initializers that a model declares, read from the protobuf's bytes without decoding the rest (a graph has thousands of
// nodes). ONNX Runtime ignores buffers of unknown names and believes a buffer's shape over the declared one: checked here instead.
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { BackendError } from "../base/errors.ts";
import type { TensorBuffer } from "./buffer.ts";
import { checkFits, type Declared, lookUp } from "./declared.ts";

export interface DeclaredInitializer extends Declared {
  /** Its bytes are not in the model. */
  readonly external: boolean;
}

/** @throws BackendError unless the buffers are exactly the model's external initializers, in dtype and shape. */
export function checkInitializers(model: Uint8Array, buffers: ReadonlyMap<string, TensorBuffer>): void {
  const external = new Map([...declaredInitializers(model)].filter(([, { external }]) => external));
  for (const [name, buffer] of buffers) checkFits("initializer", lookUp("initializer", external, name), buffer);
  const missing = [...external.keys()].filter((name) => !buffers.has(name));
  if (missing.length > 0) {
    throw new BackendError(`createSession: expected a buffer for each shared initializer, got none for ${missing.slice(0, 10).join(", ")}`);
  }
}

// Field numbers of onnx.proto.
export const [modelGraph, graphInitializer] = [7, 5];
const [tensorDims, tensorDataType, tensorName, tensorDataLocation] = [1, 2, 8, 14];

/** Initializers of the main graph by name. @throws BackendError when the bytes are no protobuf message. */
export function declaredInitializers(model: Uint8Array): Map<string, DeclaredInitializer> {
  const found = new Map<string, DeclaredInitializer>();
  try {
    eachField(new BinaryReader(model), model.byteLength, (field, reader) => {
      if (field !== modelGraph) return false;
      eachField(reader, subMessageEnd(reader), (inner) => {
        if (inner !== graphInitializer) return false;
        const tensor = readTensor(reader);
        found.set(tensor.name, tensor);
        return true;
      });
      return true;
    });
  } catch (cause) {
    throw new BackendError("createSession: expected the bytes of an ONNX model, got none that can be read", { cause });
  }
  return found;
}

/** The TensorProto that begins with its length here. */
export function readTensor(reader: BinaryReader): DeclaredInitializer {
  const shape: number[] = [];
  let [name, elementType, external] = ["", 0, false];
  eachField(reader, subMessageEnd(reader), (field, _, wireType) => {
    if (field === tensorDims && wireType === WireType.LengthDelimited) {
      const end = subMessageEnd(reader);
      while (reader.pos < end) shape.push(Number(reader.int64()));
    } else if (field === tensorDims) shape.push(Number(reader.int64()));
    else if (field === tensorDataType) elementType = reader.int32();
    else if (field === tensorName) name = reader.string();
    else if (field === tensorDataLocation) external = reader.int32() === 1;
    else return false;
    return true;
  });
  return { name, elementType, shape, external };
}

const subMessageEnd = (reader: BinaryReader): number => reader.uint32() + reader.pos;

/** Calls `take` for each field up to `end`; a field that it does not read (returns false) is skipped. */
function eachField(reader: BinaryReader, end: number, take: (field: number, reader: BinaryReader, wireType: WireType) => boolean): void {
  while (reader.pos < end) {
    const [field, wireType] = reader.tag();
    if (!take(field, reader, wireType)) reader.skip(wireType, field);
  }
}
