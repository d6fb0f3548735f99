// Text from stories260K (Karpathy's llama2.c), a model of 260 thousand parameters that comes with the package: tokens as they are chosen,
// each with its log-probability under the model.
//   npm run example -- generate-stories "Once upon a time"
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { DecoderRunner, generate } from "longwave/decode";
import { loadDecoder } from "longwave/models";
import { openBackend } from "longwave/runtime";
import { loadTokenizer } from "longwave/text";

const assets = join(dirname(createRequire(import.meta.url).resolve("longwave/package.json")), "assets", "stories260k");

export async function main({
  prompt = "Once upon a time",
  maxNewTokens = 120,
  write = (text: string) => void process.stdout.write(text),
} = {}) {
  const model = loadDecoder(join(assets, "stories260K.bin"));
  const tokenizer = loadTokenizer(join(assets, "tok512.bin"));
  using backend = openBackend().backend;
  // Two stories side by side, each row of the batch with its own request.
  using runner = new DecoderRunner(backend, model, { batch: 2 });
  const request = { ids: tokenizer.encode(prompt), maxNewTokens, logProbs: 1 };
  const greedy = { ...request, sampling: { doSample: false } };
  const sampled = { ...request, sampling: { temperature: 0.9, topP: 0.9 }, seed: 7 };

  const stories = [prompt, prompt];
  const logProbs = [0, 0];
  const counts = [0, 0];
  write(prompt);
  for await (const event of generate(runner, [greedy, sampled], { tokenizer })) {
    if (event.kind === "finish") continue;
    stories[event.request] += event.text;
    if (event.request === 0) write(event.text);
    // Text that was held back belongs to no single token.
    if (event.kind === "text") continue;
    logProbs[event.request] += event.logProb ?? 0;
    counts[event.request]++;
  }
  write(`\n\n${stories[1]}\n`);
  // The most probable token every time is not surprised by itself; a sample is, by about the entropy of the model.
  const perplexities = logProbs.map((total, i) => Math.exp(-total / counts[i]));
  write(`\nperplexity of the model on its own text: greedy ${perplexities[0].toFixed(2)}, sampled ${perplexities[1].toFixed(2)}\n`);
  return { stories, perplexities };
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) await main({ prompt: process.argv[2] });
