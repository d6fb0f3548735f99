// Checkpoints in several safetensors files with an index, as transformers writes them: `model-00001-of-00003.safetensors` and
// `model.safetensors.index.json`, whose `weight_map` names the file of every tensor.
import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { writeFileAtomic } from "../base/atomic.ts";
import { FormatError, UsageError } from "../base/errors.ts";
import { bitsPerSafetensorsElement, isSafetensorsDType, toSafetensorsDType } from "./safetensors-dtype.ts";
import { tensorBytes } from "./safetensors-header.ts";
import { type SafetensorsSpec, type SafetensorsWriteOptions, SafetensorsWriter } from "./safetensors-write.ts";

export interface ShardedTensor extends SafetensorsSpec {
  /** The elements, or a function that gives them when their turn comes. */
  readonly data: ArrayBufferView | (() => ArrayBufferView);
}

export interface ShardOptions extends SafetensorsWriteOptions {
  /** Bytes of tensors in a file; a larger tensor gets a file of its own. Default 5e9, as transformers 4 has it. */
  maxShardBytes?: number;
}

const shardName = /^model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?$/;

/**
 * Writes `model.safetensors` into an existing folder, or several files and their index when the tensors exceed `maxShardBytes`. Files of an
 * earlier checkpoint that do not belong to this one are removed.
 * @returns the names of the weight files. @throws FormatError as `writeSafetensors`, UsageError, CheckpointError.
 */
export function writeShardedSafetensors(directory: string, tensors: Iterable<ShardedTensor>, options: ShardOptions = {}): string[] {
  const { maxShardBytes = 5e9, ...writeOptions } = options;
  if (!(maxShardBytes >= 1)) throw new UsageError(`maxShardBytes: expected a positive number, got ${maxShardBytes}`);
  const list = [...tensors];
  const names = new Set<string>();
  for (const { name } of list) {
    if (names.has(name)) throw new FormatError(`${directory}: expected tensor names once each, got "${name}" twice`);
    names.add(name);
  }
  const shards: ShardedTensor[][] = [[]];
  let total = 0;
  let inShard = 0;
  for (const tensor of list) {
    const bytes = bytesOfSpec(tensor);
    if (inShard > 0 && inShard + bytes > maxShardBytes) {
      shards.push([]);
      inShard = 0;
    }
    shards.at(-1)?.push(tensor);
    inShard += bytes;
    total += bytes;
  }
  const number = (value: number): string => String(value).padStart(5, "0");
  const files = shards.map((_, i) =>
    shards.length === 1 ? "model.safetensors" : `model-${number(i + 1)}-of-${number(shards.length)}.safetensors`,
  );
  for (const [i, shard] of shards.entries()) writeShard(join(directory, files[i]), shard, writeOptions);
  const keep = new Set(files);
  if (shards.length > 1) {
    const weightMap = Object.fromEntries(shards.flatMap((shard, i) => shard.map(({ name }) => [name, files[i]])));
    const index = { metadata: { total_size: total }, weight_map: weightMap };
    writeFileAtomic(join(directory, "model.safetensors.index.json"), `${JSON.stringify(index, null, 2)}\n`);
    keep.add("model.safetensors.index.json");
  }
  // An index or a single file of before would be read in place of the new ones.
  for (const name of readdirSync(directory)) if (shardName.test(name) && !keep.has(name)) rmSync(join(directory, name));
  return files;
}

function bytesOfSpec({ name, dtype, shape }: SafetensorsSpec): number {
  const bytes = tensorBytes(isSafetensorsDType(dtype) ? dtype : toSafetensorsDType(dtype), shape);
  if (Number.isNaN(bytes)) {
    const bits = bitsPerSafetensorsElement[isSafetensorsDType(dtype) ? dtype : toSafetensorsDType(dtype)];
    throw new FormatError(`expected a countable number of elements of ${bits} bits for "${name}", got [${shape.join(", ")}]`);
  }
  return bytes;
}

function writeShard(path: string, tensors: readonly ShardedTensor[], options: SafetensorsWriteOptions): void {
  const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  const writer = new SafetensorsWriter(path, tensors, options);
  try {
    for (const name of writer.names) {
      const data = byName.get(name)?.data as ShardedTensor["data"];
      writer.append(name, typeof data === "function" ? data() : data);
    }
    writer.commit();
  } finally {
    writer.discard();
  }
}
