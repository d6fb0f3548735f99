// onnxruntime-node cannot hand over shared initializers, so their bytes are written into the model before it is loaded.
import { BinaryReader, BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { BackendError } from "../../base/errors.ts";
import { tensorBytes } from "../../tensor/onnx-proto.ts";
import type { TensorBuffer } from "../buffer.ts";
import { lookUp } from "../declared.ts";
import { graphInitializer, modelGraph, readTensor } from "../initializers.ts";

/** A protobuf message ends at 2 GiB. */
const maxModelBytes = 2 ** 31 - 1;

/**
 * The model with each external initializer replaced by the bytes of its buffer.
 * @throws BackendError when an external initializer has no buffer, or the model grows beyond 2 GiB.
 */
export function inlineInitializers(model: Uint8Array, buffers: ReadonlyMap<string, TensorBuffer>): Uint8Array<ArrayBufferLike> {
  const total = [...buffers.values()].reduce((bytes, { data }) => bytes + data.byteLength, model.byteLength);
  if (total > maxModelBytes) {
    throw new BackendError(`binding backend: expected weights below 2 GiB, got ${(total / 2 ** 30).toFixed(1)} GiB`, {
      hint: "Use the native backend, which refers to the weights where they are.",
    });
  }
  const [reader, out] = [new BinaryReader(model), new BinaryWriter()];
  /** Copies fields up to `end` as they are, but for those that `change` writes itself. */
  const copy = (end: number, changed: number, change: () => void): void => {
    while (reader.pos < end) {
      const start = reader.pos;
      const [field, wireType] = reader.tag();
      if (field === changed) {
        change();
        continue;
      }
      reader.skip(wireType, field);
      out.raw(model.subarray(start, reader.pos));
    }
  };
  const copyTensor = (): void => {
    const start = reader.pos;
    const { name, shape, elementType, external } = readTensor(reader);
    out.tag(graphInitializer, WireType.LengthDelimited);
    if (!external) {
      out.raw(model.subarray(start, reader.pos));
      return;
    }
    const { data } = lookUp("initializer", buffers, name);
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    out.bytes(tensorBytes({ name, dims: shape ?? [], dataType: elementType, data: bytes }));
  };
  copy(model.byteLength, modelGraph, () => {
    const length = reader.uint32();
    out.tag(modelGraph, WireType.LengthDelimited).fork();
    copy(reader.pos + length, graphInitializer, copyTensor);
    out.join();
  });
  return out.finish();
}
