// A process of its own: loads a model, generates one token and tells by how much its resident memory grew, cache of keys and values excluded.
// Arguments: model, packed or shared. A small model has gone through the same code before.
import { DecoderRunner } from "../../src/decode/runner.ts";
import { loadModel } from "../../src/recipes/text-model/load-model.ts";
import { openBackend } from "../../src/runtime/open.ts";

const [path, small, weights] = process.argv.slice(2) as [string, string, "packed" | "shared"];
const { backend } = openBackend();

async function firstToken(source: string): Promise<{ runner: DecoderRunner; kept: unknown }> {
  const loaded = await loadModel(source);
  const runner = new DecoderRunner(backend, loaded.model, { capacity: 256, weights });
  runner.append(0, [1, 2, 3]);
  return { runner, kept: loaded };
}

/** Bytes in memory that belong to this process alone or to files that it maps. */
function resident(): number {
  globalThis.gc?.();
  return process.memoryUsage.rss();
}

const first = await firstToken(small);
first.runner.dispose();
const before = resident();
const { runner, kept } = await firstToken(path);
const { cache } = runner.memory;
// The model must be alive when memory is read.
process.stdout.write(`${JSON.stringify({ grown: resident() - before - cache, told: runner.memory, alive: kept !== undefined })}\n`);
runner.dispose();
backend.dispose();
