// node-llama-cpp's side of decode. Started with the folder where it is installed; speaks the lines of serve.py.
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const require = createRequire(join(process.argv[2], "package.json"));
const { getLlama, LlamaLogLevel } = await import(pathToFileURL(require.resolve("node-llama-cpp")).href);
const threads = Number(process.env.OMP_NUM_THREADS);
const llama = await getLlama({ gpu: false, build: "never", maxThreads: threads, logLevel: LlamaLogLevel.disabled });
const sequences = new Map();

const methods = {
  async load({ file, path, past, capacity }) {
    const model = await llama.loadModel({ modelPath: path });
    const context = await model.createContext({ contextSize: capacity, threads: { ideal: threads, min: threads } });
    sequences.set(file, { sequence: context.getSequence(), past });
  },
  /** Mean milliseconds of a token: the tokens come from one `evaluate`, as a user gets them. */
  async sample({ file, calls }) {
    const { sequence, past } = sequences.get(file);
    await sequence.clearHistory();
    let count = 0;
    let start = 0;
    for await (const _ of sequence.evaluate(past, { temperature: 0, yieldEogToken: true })) {
      if (count++ === 0) start = performance.now();
      if (count > calls) break;
    }
    return (performance.now() - start) / calls;
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { method, parameters } = JSON.parse(line);
  try {
    process.stdout.write(`${JSON.stringify({ reply: (await methods[method](parameters)) ?? null })}\n`);
  } catch (error) {
    process.stdout.write(`${JSON.stringify({ error: String(error?.stack ?? error) })}\n`);
  }
}
process.exit(0);
