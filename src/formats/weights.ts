// Opens the weights of a checkpoint folder in whichever format they are: safetensors, or what torch.save wrote; in one file or several.
import { existsSync, statSync } from "node:fs";
import { dirname, extname, join } from "node:path";
import { FormatError } from "../base/errors.ts";
import { readJsonObject } from "./json-file.ts";
import { openSafetensors } from "./safetensors.ts";
import type { TensorEntry, TensorSource } from "./tensor-source.ts";
import { openTorch, type TorchSource } from "./torch-file.ts";

const torchNames = ["pytorch_model.bin", "pytorch_model.bin.index.json"];

/**
 * Opens a folder (safetensors first, then pytorch_model.bin), or a file by its ending: .safetensors, .index.json, .pt, .pth, .bin.
 * @throws FormatError when there are none, or they are damaged.
 */
export function openWeights(path: string): TensorSource {
  const isFolder = statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
  if (!isFolder) {
    if (path.endsWith(".bin.index.json")) return openTorchShards(path);
    return [".pt", ".pth", ".bin"].includes(extname(path)) ? openTorch(path) : openSafetensors(path);
  }
  const hasSafetensors = ["model.safetensors", "model.safetensors.index.json"].some((name) => existsSync(join(path, name)));
  const torch = torchNames.find((name) => existsSync(join(path, name)));
  return !hasSafetensors && torch !== undefined ? openWeights(join(path, torch)) : openSafetensors(path);
}

function openTorchShards(indexPath: string): TensorSource {
  const map = readJsonObject(indexPath).weight_map;
  if (typeof map !== "object" || map === null) throw new FormatError(`${indexPath}: expected an object "weight_map", got none`);
  const shards = new Map<string, TorchSource>();
  const owner = new Map<string, TorchSource>();
  const entries = new Map<string, TensorEntry>();
  const close = (): void => {
    for (const shard of shards.values()) shard.close();
  };
  try {
    for (const [name, file] of Object.entries(map)) {
      // A plain file name only: an index must not reach outside its own folder.
      if (typeof file !== "string" || !/^[^/\\\0]+\.bin$/.test(file)) {
        throw new FormatError(`${indexPath}: expected the name of a .bin file beside it for "${name}", got ${JSON.stringify(file)}`);
      }
      const shard = shards.get(file) ?? openTorch(join(dirname(indexPath), file));
      shards.set(file, shard);
      const entry = shard.entries.get(name);
      if (entry === undefined)
        throw new FormatError(`${indexPath}: expected tensor "${name}" in ${file}, got none`, { hint: "Download all parts again." });
      entries.set(name, entry);
      owner.set(name, shard);
    }
  } catch (cause) {
    close();
    throw cause;
  }
  const shardOf = (name: string): TorchSource => {
    const shard = owner.get(name);
    if (shard === undefined) throw new FormatError(`${indexPath}: expected tensor "${name}", got ${entries.size} others`);
    return shard;
  };
  return {
    entries,
    readInto: (name, buffer) => shardOf(name).readInto(name, buffer),
    read: (name) => shardOf(name).read(name),
    close,
    [Symbol.dispose]: close,
  };
}
