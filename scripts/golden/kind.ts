// What a kind of golden data is. One file in kinds/ exports one `kind`; kinds.json says which kinds must be covered.
import type { Backend } from "../../src/runtime/backend.ts";
import type { Comparison } from "./compare.ts";
import type { Folder } from "./folder.ts";

/** What cases share while they run. */
export interface Session {
  /** ONNX Runtime, opened when it is first asked for. */
  readonly backend: Backend;
}

export interface GoldenCase {
  /** The entry of kinds.json that it belongs to. A kind that is not listed there is not covered. */
  readonly kind: string;
  /** What tells it from its neighbours: a number, a name, the options. */
  readonly name: string;
  /** Compares what the product computes. Throwing is failing. */
  run(comparison: Comparison, session: Session): void | Promise<void>;
}

/** Files of one folder that belong together. */
export interface Unit {
  /** Shown before the names of its cases; "" when the folder itself says enough. */
  readonly name: string;
  readonly files: readonly string[];
  /** Other kinds may have cases in the same files. */
  readonly shared?: boolean;
  /** @throws Malformed when the files are not what they seem. */
  cases(): Iterable<GoldenCase>;
  /** Frees what the cases hold. */
  dispose?(): void;
}

export interface GoldenKind {
  /** The units of this kind in a folder (not in its sub-folders), by their fields or, where files are damaged, by their names. */
  recognise(folder: Folder): readonly Unit[];
}

/** Computed when it is first asked for; an error is thrown at every call. */
export function lazy<T>(make: () => T): () => T {
  let made: { value: T } | undefined;
  return () => {
    made ??= { value: make() };
    return made.value;
  };
}
