// Names, element types and shapes of a session's inputs and outputs.
import type { Declared } from "../declared.ts";
import type { Environment } from "./environment.ts";

const doing = "createSession: reading the signature";

export function readDeclared({ library, allocator }: Environment, session: bigint, kind: "Input" | "Output"): Map<string, Declared> {
  const { functions, check, receive, textAt } = library;
  const count = functions[`SessionGet${kind}Count`];
  const nameAt = functions[`SessionGet${kind}Name`];
  const typeAt = functions[`SessionGet${kind}TypeInfo`];

  const entries = new Map<string, Declared>();
  const length = Number(receive(doing, (out) => count(session, out)));
  for (let index = 0; index < length; index++) {
    const text = receive(doing, (out) => nameAt(session, index, allocator, out));
    const name = textAt(text);
    check(functions.AllocatorFree(allocator, text), doing);
    const type = receive(doing, (out) => typeAt(session, index, out));
    try {
      entries.set(name, { name, ...tensorType(library, type) });
    } finally {
      functions.ReleaseTypeInfo(type);
    }
  }
  return entries;
}

function tensorType({ functions, check, receive }: Environment["library"], type: bigint): Omit<Declared, "name"> {
  // Part of `type`, so not released. Null for a sequence or a map.
  const tensor = receive(doing, (out) => functions.CastTypeInfoToTensorInfo(type, out));
  if (tensor === 0n) return { elementType: 0, shape: undefined };
  // The element type is a C enum: it fills the lower half of the word.
  const elementType = Number(receive(doing, (out) => functions.GetTensorElementType(tensor, out)));
  const rank = Number(receive(doing, (out) => functions.GetDimensionsCount(tensor, out)));
  const shape = new BigInt64Array(Math.max(rank, 1));
  check(functions.GetDimensions(tensor, shape, rank), doing);
  return { elementType, shape: Array.from(shape.subarray(0, rank), Number) };
}
