// A process of its own: loads a model's weights, runs a prompt and a dozen tokens and tells by how much its resident memory grew, cache of keys
// and values excluded; then with the tokenizer too. Arguments: model, a small model that goes through the same code before, packed or shared.
import { DecoderRunner } from "../../src/decode/runner.ts";
import { loadDecoder, loadQuantisedGguf } from "../../src/models/index.ts";
import { openBackend } from "../../src/runtime/open.ts";
import { loadTokenizer } from "../../src/text/index.ts";

const [path, small, weights] = process.argv.slice(2) as [string, string, "packed" | "shared"];
const { backend } = openBackend();

function firstTokens(source: string): DecoderRunner {
  const model = source.endsWith(".gguf") ? loadQuantisedGguf(source) : loadDecoder(source);
  const runner = new DecoderRunner(backend, model, { capacity: 256, weights });
  runner.append(0, [1, 2, 3]);
  // Kernels keep what they laid out anew over their first calls: after a dozen, memory is what it stays.
  for (let token = 4; token < 16; token++) runner.append(0, [token]);
  return runner;
}

/** Bytes in memory that belong to this process alone or to files that it maps. */
function resident(): number {
  globalThis.gc?.();
  return process.memoryUsage.rss();
}

firstTokens(small).dispose();
const before = resident();
const runner = firstTokens(path);
const { memory } = runner;
const grown = resident() - before - memory.cache;
const tokenizer = loadTokenizer(path);
const grownWithText = resident() - before - memory.cache;
// Both must be alive when memory is read.
process.stdout.write(`${JSON.stringify({ grown, grownWithText, told: memory, alive: tokenizer.vocabSize > 0 })}\n`);
runner.dispose();
backend.dispose();
