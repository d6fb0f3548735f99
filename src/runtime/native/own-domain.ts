// The operators of longwave's own as ONNX Runtime wants them: descriptions in a library, put into a domain that sessions are told of.
import type { BackendError } from "../../base/errors.ts";
import { groupQueryAttention, quantisedLinear } from "../../tensor/attention.ts";
import { Graph } from "../../tensor/graph.ts";
import { own, toOnnx } from "../../tensor/onnx.ts";
import { logFatal } from "../ort.ts";
import type { Library } from "./library.ts";

/** Which function of the library gives the address of each operator's description. */
const exportedBy = { MatMulBlocks: "longwave_matmul_blocks", GroupedAttention: "longwave_grouped_attention" } as const;

export interface OwnDomain {
  /** The library. */
  readonly path: string;
  readonly pointer: bigint;
  readonly operators: ReadonlySet<string>;
}

/**
 * Loads the library at `path` and makes a session with its operators, so that a library that does not work is found out here. ONNX Runtime
 * notes the name of a domain with the first session that has it, in a list of the process without a lock: not later, beside other sessions.
 * @throws BackendError
 */
export function openOwnDomain(library: Library, environment: bigint, path: string): OwnDomain {
  const { functions, check, receive, addressFrom } = library;
  const doing = `loading ${path}`;
  const addresses = Object.values(exportedBy).map((name) => addressFrom(path, name));
  const pointer = receive(doing, (out) => functions.CreateCustomOpDomain(own, out));
  const domain = { path, pointer, operators: new Set(Object.keys(exportedBy)) };
  try {
    for (const address of addresses) check(functions.CustomOpDomain_Add(pointer, address), doing);
    try {
      makeSession(library, environment, domain);
    } catch (error) {
      // Another thread was noting it at the same time, and has done so now.
      if (!/DomainToVersion/.test((error as BackendError).message)) throw error;
      makeSession(library, environment, domain);
    }
    return domain;
  } catch (error) {
    functions.ReleaseCustomOpDomain(pointer);
    throw error;
  }
}

function makeSession({ functions, check, receive }: Library, environment: bigint, { pointer, operators }: OwnDomain): void {
  const doing = "trying our own operators";
  const graph = new Graph();
  const [x, packed, scales] = [
    graph.input("x", "f32", [1, 32]),
    graph.input("packed", "u8", [1, 1, 32]),
    graph.input("scales", "f32", [1, 1]),
  ];
  const [query, lengths, total] = [
    graph.input("query", "f32", [1, 1, 24]),
    graph.input("lengths", "i32", [1]),
    graph.input("total", "i32", []),
  ];
  const [pastKey, pastValue] = ["key", "value"].map((name) => graph.input(name, "f32", [1, 1, 8, 8]));
  const { output } = groupQueryAttention({ query, pastKey, pastValue, lengths, total }, { heads: 1, kvHeads: 1 });
  const { bytes } = toOnnx(graph, [quantisedLinear(x, { packed, scales }, 8, 32), output], { operators });
  const options = receive(doing, (out) => functions.CreateSessionOptions(out));
  try {
    check(functions.SetSessionLogSeverityLevel(options, logFatal), doing);
    check(functions.SetIntraOpNumThreads(options, 1), doing);
    check(functions.AddCustomOpDomain(options, pointer), doing);
    functions.ReleaseSession(receive(doing, (out) => functions.CreateSessionFromArray(environment, bytes, bytes.byteLength, options, out)));
  } finally {
    functions.ReleaseSessionOptions(options);
  }
}
