// Reader of llama2.c checkpoints (the original format, version 0): seven i32, then float32 weights in a fixed order.
// Differs from the file: tensors carry Hugging Face Llama names, and the rows of q and k are reordered, because llama2.c rotates
// adjacent pairs (2i, 2i+1) of a head while Hugging Face rotates (i, i + D/2). Attention scores are unchanged by it.
// Letters: L layers, C width, F width of the MLP, H query heads, K key/value heads, D head width, V vocabulary, T positions.
import { closeSync, fstatSync } from "node:fs";
import { BackendError, FormatError } from "../base/errors.ts";
import { bytesOf, openForReading, readFully } from "../base/file-io.ts";
import { allocate, type TensorBuffer } from "../runtime/buffer.ts";
import type { HfConfig } from "./hf-config.ts";
import type { TensorEntry, TensorSource } from "./tensor-source.ts";

const headerBytes = 28;

export interface Llama2cConfig {
  /** C */
  width: number;
  /** F */
  mlpWidth: number;
  /** L */
  numLayers: number;
  /** H */
  numHeads: number;
  /** K */
  numKeyValueHeads: number;
  /** V */
  vocabularySize: number;
  /** T: the longest sequence that it was trained for. */
  maxPositions: number;
  /** Whether the output matrix is the embedding. */
  tiedEmbeddings: boolean;
}

export interface Llama2cSource extends TensorSource {
  readonly config: Llama2cConfig;
}

interface Place extends TensorEntry {
  /** First byte in the file. */
  byteOffset: number;
  /** Head width D when rows are to be reordered, else 0. */
  headWidth: number;
}

/**
 * Opens a llama2.c `.bin` file.
 * @throws FormatError when its header is implausible or its size is not exactly what the header describes.
 */
export function openLlama2c(path: string): Llama2cSource {
  const fd = openForReading(path);
  try {
    const { size } = fstatSync(fd);
    const header = new Int32Array(headerBytes / 4);
    readFully(fd, bytesOf(header), 0, path);
    const config = parseHeader(header, path);
    const { entries, end } = layOut(config);
    if (end !== size) {
      throw new FormatError(`${path}: expected ${end} bytes for the model its header describes, got ${size}`, {
        hint: size < end ? "The file is cut short or no llama2.c file: copy it again." : "This is no llama2.c file of the original format.",
      });
    }
    return new Llama2cFile(path, fd, config, entries);
  } catch (cause) {
    closeSync(fd);
    throw cause;
  }
}

/** The same model described as a Hugging Face Llama. */
export function llama2cToHfConfig(config: Llama2cConfig): HfConfig {
  return {
    model_type: "llama",
    architectures: ["LlamaForCausalLM"],
    vocab_size: config.vocabularySize,
    hidden_size: config.width,
    intermediate_size: config.mlpWidth,
    num_hidden_layers: config.numLayers,
    num_attention_heads: config.numHeads,
    num_key_value_heads: config.numKeyValueHeads,
    head_dim: config.width / config.numHeads,
    max_position_embeddings: config.maxPositions,
    hidden_act: "silu",
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    attention_bias: false,
    tie_word_embeddings: config.tiedEmbeddings,
    torch_dtype: "float32",
    // The ids that llama2.c's sampler uses.
    bos_token_id: 1,
    eos_token_id: 2,
  };
}

function parseHeader(header: Int32Array, path: string): Llama2cConfig {
  const [width, mlpWidth, numLayers, numHeads, numKeyValueHeads, signedVocabulary, maxPositions] = header;
  if (width === 0x616b3432) {
    throw new FormatError(`${path}: expected the original llama2.c format, got version ${mlpWidth}`, {
      hint: "Export the model again with version 0.",
    });
  }
  const refuse = (expected: string) =>
    new FormatError(`${path}: expected ${expected}, got the header [${header.join(", ")}]`, { hint: "This is no llama2.c model file." });
  if ([width, mlpWidth, numLayers, numHeads, numKeyValueHeads, Math.abs(signedVocabulary), maxPositions].some((value) => value < 1)) {
    throw refuse("seven sizes that are not zero, and only the vocabulary's negative");
  }
  if (width % numHeads !== 0 || (width / numHeads) % 2 !== 0) throw refuse("a width that divides into heads of even width");
  if (numHeads % numKeyValueHeads !== 0) throw refuse("query heads that divide among the key/value heads");
  const vocabularySize = Math.abs(signedVocabulary);
  return { width, mlpWidth, numLayers, numHeads, numKeyValueHeads, vocabularySize, maxPositions, tiedEmbeddings: signedVocabulary > 0 };
}

function layOut(config: Llama2cConfig): { entries: Map<string, Place>; end: number } {
  const { width: C, mlpWidth: F, numLayers: L, numHeads: H, numKeyValueHeads: K, vocabularySize: V } = config;
  const D = C / H;
  const entries = new Map<string, Place>();
  let byteOffset = headerBytes;
  const add = (name: string, shape: number[], headWidth = 0) => {
    entries.set(name, { name, dtype: "F32", shape, byteOffset, headWidth });
    byteOffset += 4 * shape.reduce((product, dimension) => product * dimension, 1);
  };
  // Each kind is stored for all layers before the next kind begins. A lying header cannot make this list long: see layersBound.
  const addLayers = (name: string, shape: number[], headWidth = 0) => {
    for (let layer = 0; layer < L; layer++) add(`model.layers.${layer}.${name}.weight`, shape, headWidth);
  };
  if (L > layersBound) return { entries, end: Number.POSITIVE_INFINITY };
  add("model.embed_tokens.weight", [V, C]);
  addLayers("input_layernorm", [C]);
  addLayers("self_attn.q_proj", [H * D, C], D);
  addLayers("self_attn.k_proj", [K * D, C], D);
  addLayers("self_attn.v_proj", [K * D, C]);
  addLayers("self_attn.o_proj", [C, H * D]);
  addLayers("post_attention_layernorm", [C]);
  addLayers("mlp.gate_proj", [F, C]);
  addLayers("mlp.down_proj", [C, F]);
  addLayers("mlp.up_proj", [F, C]);
  add("model.norm.weight", [C]);
  byteOffset += 4 * config.maxPositions * D; // tables of cosines and sines, [T, D/2] each: computed anew
  if (!config.tiedEmbeddings) add("lm_head.weight", [V, C]);
  return { entries, end: byteOffset };
}

/** No Llama has a tenth of it. */
const layersBound = 10_000;

class Llama2cFile implements Llama2cSource {
  readonly config: Llama2cConfig;
  readonly entries: ReadonlyMap<string, TensorEntry>;
  private readonly path: string;
  private readonly places: ReadonlyMap<string, Place>;
  private fd: number | undefined;

  constructor(path: string, fd: number, config: Llama2cConfig, places: ReadonlyMap<string, Place>) {
    this.path = path;
    this.fd = fd;
    this.config = config;
    this.places = places;
    this.entries = places;
  }

  readInto(name: string, buffer: TensorBuffer): void {
    const place = this.place(name);
    if (this.fd === undefined) throw new BackendError(`${this.path}: expected an open file, got one that was closed`);
    if (place.shape.join() !== buffer.shape.join() || (buffer.dtype !== "f32" && buffer.dtype !== "f64")) {
      const got = `${buffer.dtype} [${buffer.shape.join(", ")}]`;
      throw new FormatError(`${this.path}: expected f32 or f64 [${place.shape.join(", ")}] as memory for "${name}", got ${got}`);
    }
    const data = buffer.data as Float32Array | Float64Array;
    // In float32 memory the reading is direct; reordering and widening go head by head, others row by row.
    if (data instanceof Float32Array && place.headWidth === 0) {
      readFully(this.fd, bytesOf(data), place.byteOffset, this.path);
      return;
    }
    const width = place.shape[place.shape.length - 1];
    const block = new Float32Array(width * Math.max(1, place.headWidth));
    for (let at = 0; at < data.length; at += block.length) {
      readFully(this.fd, bytesOf(block), place.byteOffset + at * 4, this.path);
      if (place.headWidth === 0) data.set(block, at);
      else scatterRows(block, place.headWidth, width, data, at);
    }
  }

  read(name: string): TensorBuffer {
    const buffer = allocate("f32", this.place(name).shape);
    this.readInto(name, buffer);
    return buffer;
  }

  close(): void {
    if (this.fd !== undefined) closeSync(this.fd);
    this.fd = undefined;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  private place(name: string): Place {
    const place = this.places.get(name);
    if (place === undefined) {
      throw new FormatError(`${this.path}: expected one of its ${this.places.size} tensors, got "${name}"`, {
        hint: this.config.tiedEmbeddings && name === "lm_head.weight" ? "The output matrix is the embedding in this model." : undefined,
      });
    }
    return place;
  }
}

/** Row 2i of a head becomes row i, row 2i + 1 becomes row i + D/2. */
function scatterRows(block: Float32Array, headWidth: number, width: number, data: Float32Array | Float64Array, at: number): void {
  for (let row = 0; row < headWidth; row++) {
    const target = row % 2 === 0 ? row / 2 : (row - 1 + headWidth) / 2;
    data.set(block.subarray(row * width, (row + 1) * width), at + target * width);
  }
}
