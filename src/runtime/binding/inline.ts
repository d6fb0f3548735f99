// onnxruntime-node cannot hand over shared initializers, so their bytes are written into the model before it is loaded.
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { TensorProto_DataLocation as DataLocation, ModelProtoSchema } from "onnx-buf";
import { BackendError } from "../../base/errors.ts";
import type { TensorBuffer } from "../buffer.ts";
import { lookUp } from "../declared.ts";

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
  const proto = fromBinary(ModelProtoSchema, model);
  for (const tensor of proto.graph?.initializer ?? []) {
    if (tensor.dataLocation !== DataLocation.EXTERNAL) continue;
    const { data } = lookUp("initializer", buffers, tensor.name);
    tensor.dataLocation = DataLocation.DEFAULT;
    tensor.externalData = [];
    tensor.rawData = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  }
  return toBinary(ModelProtoSchema, proto);
}
