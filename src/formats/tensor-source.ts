// What every weight file offers, whatever its format: named tensors that are read straight into given memory.
import { FormatError } from "../base/errors.ts";
import type { TensorBuffer } from "../runtime/buffer.ts";

export interface TensorEntry {
  readonly name: string;
  /** The element type as the file's format calls it, such as "BF16". */
  readonly dtype: string;
  readonly shape: readonly number[];
}

export interface TensorSource {
  /** In the order of the data in the file. */
  readonly entries: ReadonlyMap<string, TensorEntry>;
  /**
   * Reads a whole tensor into memory of the same shape, converting any float type to f32 or f64 on the way.
   * @throws FormatError for an unknown name, another shape, or a conversion that would lose its meaning.
   */
  readInto(name: string, buffer: TensorBuffer): void;
  /** Freshly allocated: floats as f32, everything else as stored. */
  read(name: string): TensorBuffer;
  /** Releases the file. Reading afterwards throws. */
  close(): void;
  [Symbol.dispose](): void;
}

/** A tensor that a file of weights does not have, with some of those that it has. */
export function missingTensor(path: string, name: string, entries: ReadonlyMap<string, TensorEntry>): FormatError {
  const some = [...entries.keys()].slice(0, 5).map((known) => `"${known.slice(0, 80)}"`);
  const more = entries.size > 5 ? ", …" : "";
  return new FormatError(`${path}: expected tensor "${name}", got ${entries.size} others (${some.join(", ")}${more})`, {
    hint: "The weights and the configuration do not belong together, or the file is of another architecture.",
  });
}
