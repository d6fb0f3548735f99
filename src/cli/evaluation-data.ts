// What `longwave evaluate` measures on: the texts that were named, else what the model's own run kept for validation, else the built-in
// corpus. Named texts are encoded as they are read, and no further than needed; those of a run are in its cache.
import { existsSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { CheckpointError } from "../base/errors.ts";
import {
  type Corpus,
  contentHash,
  openCorpus,
  type PackingOptions,
  type SourceOptions,
  stateOfTheUnion,
  type TokenSource,
  tokensOf,
} from "../data/index.ts";
import { type JsonRecord, openRunDirectory } from "../engine/index.ts";
import { holdOut, locateRun, type PretrainSettings, parseSavedSettings, tokenise } from "../recipes/index.ts";
import type { Tokenizer } from "../text/index.ts";

export interface EvaluationRequest {
  model: string;
  data: readonly string[];
  source: SourceOptions;
  /** Share of the documents. Default: of a run its own, else all. */
  validation: number | undefined;
  tokenizer: Tokenizer;
  signal: AbortSignal;
  /** Tells what is going on. */
  report: (text: () => string) => void;
  warn: (message: string) => void;
}

export interface EvaluationData {
  /** In words: what is measured on. */
  readonly name: string;
  /** Whether the user named it: then all of it counts. */
  readonly isNamed: boolean;
  /** As the run packed it; undefined leaves the choice to the caller. */
  readonly sequenceLength: number | undefined;
  readonly isolateDocuments: boolean;
  readonly packing: PackingOptions["mode"];
  /** Its tokens; no more than `enough` of them where that spares reading. */
  tokens(enough: number): Promise<TokenSource>;
  close(): void;
}

/** @throws DataError, UsageError, FormatError for data that cannot be read. */
export function chooseEvaluationData(request: EvaluationRequest): EvaluationData {
  const { model, data, source } = request;
  if (data.length > 0) return plain(openCorpus([...data], source), request);
  const run = pretrainingRunOf(model);
  return run ? ofRun(run.path, parseSavedSettings(run.path), run.config, request) : plain(stateOfTheUnion(), request);
}

/** The run that a model (a run folder, one of its checkpoints, or the averages in one) comes from, where it learned from text. */
function pretrainingRunOf(model: string): { path: string; config: JsonRecord } | undefined {
  try {
    const { run: path } = locateRun(basename(model) === "ema" ? dirname(model) : model);
    const { config } = openRunDirectory(path);
    return typeof config.corpus === "string" ? { path, config } : undefined;
  } catch (error) {
    if (error instanceof CheckpointError) return undefined;
    throw error;
  }
}

function plain(corpus: Corpus, request: EvaluationRequest): EvaluationData {
  const { data, tokenizer, signal, report, validation = 0 } = request;
  return {
    name: corpus.name,
    isNamed: data.length > 0,
    sequenceLength: undefined,
    isolateDocuments: false,
    packing: "concatenate",
    async tokens(enough) {
      const encoded: Int32Array[] = [];
      const hashes: number[] = [];
      let numTokens = 0;
      for await (const { text } of corpus.documents({ signal })) {
        const ids = tokenizer.encode(text, { addSpecialTokens: false });
        encoded.push(ids);
        hashes.push(contentHash(text));
        numTokens += ids.length;
        report(() => `reading ${corpus.name}: ${numTokens.toLocaleString("en-US")} tokens`);
        signal.throwIfAborted();
        // Which documents make up a share is known when all of them have been seen.
        if (validation === 0 && numTokens >= enough) break;
      }
      const all = tokensOf(encoded, hashes);
      return holdOut(all, validation).validation ?? all;
    },
    close: () => {},
  };
}

function ofRun(path: string, settings: PretrainSettings, config: JsonRecord, request: EvaluationRequest): EvaluationData {
  const { tokenizer, signal, report, warn } = request;
  const { data, field, splitBy, extensions, validation: share, isolateDocuments, sequenceLength, packing } = settings;
  const corpus = data.length > 0 ? openCorpus(data, { field, splitBy, extensions }) : stateOfTheUnion();
  if (corpus.fingerprint !== config.corpus) warn(`the data has changed since the run: other documents may be kept for validation now`);
  const validation = request.validation ?? share;
  if (validation === 0) warn("the run kept nothing for validation: this is what it was trained on");
  let file: Awaited<ReturnType<typeof openTokens>> | undefined;
  const openTokens = async () => {
    const events = tokenise(corpus, tokenizer, cacheOf(path), signal);
    for (;;) {
      const { done, value } = await events.next();
      if (done) return value;
      if (value.kind === "stage") report(() => value.message);
    }
  };
  return {
    name: `${validation === 0 ? "training" : "validation"} data of ${path}: ${corpus.name}`,
    isNamed: false,
    sequenceLength,
    isolateDocuments,
    packing,
    async tokens() {
      file = await openTokens();
      return holdOut(file, validation).validation ?? file;
    },
    close: () => file?.close(),
  };
}

/** Tokenised data lies beside the runs; the parts of a tour share that of the folder above. */
function cacheOf(run: string): string {
  const [beside, above] = [join(run, "..", ".cache"), join(run, "..", "..", ".cache")];
  return !existsSync(beside) && existsSync(above) ? above : beside;
}
