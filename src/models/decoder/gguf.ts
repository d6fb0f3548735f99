// A GGUF model file seen as the Hugging Face checkpoint that it was converted from: the same configuration, names and row order, so that
// every family of decoders loads from it. Quantised tensors are dequantised while they are read.
import { FormatError } from "../../base/errors.ts";
import type { GgufSource } from "../../formats/gguf.ts";
import type { HfConfig } from "../../formats/hf-config.ts";
import type { TensorEntry, TensorSource } from "../../formats/tensor-source.ts";
import { allocate, type TensorBuffer } from "../../runtime/buffer.ts";
import { type GgufPlace, ggufArchitecture, ggufPlaces } from "./gguf-names.ts";

/** A tensor of the checkpoint and where it comes from. */
export interface GgufCheckpointEntry extends TensorEntry, GgufPlace {}

/** The view; closing it closes the file. */
export interface GgufCheckpoint extends TensorSource {
  readonly entries: ReadonlyMap<string, GgufCheckpointEntry>;
  readonly file: GgufSource;
}

/** @throws FormatError for architectures that are not known. */
export function ggufCheckpoint(file: GgufSource, config: HfConfig): GgufCheckpoint {
  const entries = new Map<string, GgufCheckpointEntry>();
  for (const place of ggufPlaces(ggufArchitecture(file), config, (name) => file.entries.has(name))) {
    const stored = file.entries.get(place.name)!;
    const own = place.index === undefined ? stored.shape : stored.shape.slice(1);
    const shape = place.change?.kind === "transposed" ? own.toReversed() : own;
    entries.set(place.key, { ...place, dtype: stored.dtype, shape });
  }
  const placed = new Set([...entries.values()].map(({ name }) => name));
  // What has no place keeps its name; rotary tables are part of the configuration.
  for (const { name, dtype, shape } of file.entries.values()) {
    if (!placed.has(name) && !/^rope_f|attn_rot_embd/.test(name)) entries.set(name, { key: name, name, dtype, shape });
  }
  const read = (name: string, buffer: TensorBuffer): void => {
    const entry = entries.get(name);
    if (entry === undefined) {
      throw new FormatError(`${file.path}: expected a tensor for "${name}", got none`, { hint: "The file is of another architecture." });
    }
    if (entry.shape.join() !== buffer.shape.join()) {
      throw new FormatError(
        `${file.path}: expected shape [${buffer.shape.join(", ")}] for tensor "${entry.name}", got [${entry.shape.join(", ")}] in the file`,
        { hint: "The weights and the metadata do not belong together." },
      );
    }
    readEntry(file, entry, buffer);
  };
  const close = (): void => file.close();
  return {
    file,
    entries,
    readInto: read,
    read: (name) => {
      const buffer = allocate("f32", entries.get(name)?.shape ?? []);
      read(name, buffer);
      return buffer;
    },
    close,
    [Symbol.dispose]: close,
  };
}

function readEntry(file: GgufSource, { name, shape, index = 0, change }: GgufCheckpointEntry, buffer: TensorBuffer): void {
  const data = buffer.data as Float32Array;
  const start = index * data.length;
  switch (change?.kind) {
    case undefined:
      file.readSliceInto(name, start, buffer);
      break;
    case "minusOne":
      file.readSliceInto(name, start, buffer);
      for (let i = 0; i < data.length; i++) data[i] -= 1;
      break;
    case "transposed": {
      const [rows, columns] = shape;
      const stored = allocate("f32", [columns, rows]);
      file.readSliceInto(name, start, stored);
      for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) data[i * columns + j] = stored.data[j * rows + i];
      break;
    }
    case "pairs": {
      const { headWidth } = change;
      const width = shape.length === 1 ? 1 : shape[1];
      // A head at a time, or all of a bias.
      const head = allocate("f32", [shape.length === 1 ? data.length : headWidth * width]);
      for (let at = 0; at < data.length; at += head.data.length) {
        file.readSliceInto(name, at, head);
        for (let row = 0; row < head.data.length / width; row++) {
          data.set(head.data.subarray(row * width, (row + 1) * width), at + rowOfPair(row, headWidth) * width);
        }
      }
    }
  }
}

/** Where row `row` of a matrix in pairs belongs among the rows of the checkpoint. */
export function rowOfPair(row: number, headWidth: number): number {
  const inside = row % headWidth;
  return row - inside + (inside >> 1) + (inside & 1 ? headWidth / 2 : 0);
}
