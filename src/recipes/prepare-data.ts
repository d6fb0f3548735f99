// From a corpus to token ids on disk: a tokenizer that is given, or trained on the training documents, and the tokenised corpus.
import { existsSync, rmdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { DataError } from "../base/errors.ts";
import { type Corpus, openTokenCache, splitDocuments, type TokenFile } from "../data/index.ts";
import type { RunDirectory, RunEvent } from "../engine/index.ts";
import { decoderPresets } from "../models/decoder/presets.ts";
import {
  loadTokenizer,
  saveTokenizer,
  type Tokenizer,
  type TokenizerRoles,
  type TrainedBpe,
  tokenizerFromTrained,
  trainBpe,
} from "../text/index.ts";
import { follow, type Report, stage } from "./events.ts";
import { copyTokenizer, resolveModel, tokenizerBeside } from "./model-source.ts";
import type { PretrainSettings } from "./pretrain-options.ts";

const endOfText = "<|endoftext|>";
/** Every text begins with the token that ends the one before it in training. */
const roles: TokenizerRoles = { bosToken: endOfText, eosToken: endOfText, addBos: true };

/** Where a run keeps its tokenizer. */
export const tokenizerFolder = (run: RunDirectory): string => join(run.path, "tokenizer");

export interface PreparedTokenizer {
  tokenizer: Tokenizer;
  /** Writes it into a folder. */
  save: (directory: string) => void;
}

/**
 * The tokenizer of the run that is resumed, else the one given, else one trained on the training documents.
 * @throws DataError when the text does not support the vocabulary, FormatError for a tokenizer that cannot be read.
 */
export async function* prepareTokenizer(
  settings: PretrainSettings,
  corpus: Corpus,
  former: RunDirectory | undefined,
  signal: AbortSignal | undefined,
): AsyncGenerator<RunEvent, PreparedTokenizer> {
  const { vocabSize, preTokenizer } = settings;
  if (former && existsSync(tokenizerFolder(former)))
    return { tokenizer: loadTokenizer(tokenizerFolder(former)), save: (directory) => copyTokenizer(tokenizerFolder(former), directory) };
  const given = settings.tokenizer ?? (settings.init === undefined ? undefined : tokenizerBeside(resolveModel(settings.init)));
  if (given !== undefined) return { tokenizer: loadTokenizer(given), save: (directory) => copyTokenizer(given, directory) };
  const started = performance.now();
  const read = { characters: 0 };
  yield stage("tokenizer", `training a byte-level BPE tokenizer of ${vocabSize} tokens on ${corpus.name}`);
  const trained = yield* follow((report) =>
    trainBpe(
      textsOf(corpus, settings, read, signal),
      { vocabSize, preTokenizer, specialTokens: [endOfText], allowSmaller: true },
      {
        signal,
        onProgress: ({ phase, done, total }) =>
          report(() =>
            phase === "count"
              ? stage("tokenizer", `tokenizer: read ${done.toLocaleString("en")} characters`)
              : stage("tokenizer", `tokenizer: ${done} tokens`, { progress: done / (total ?? vocabSize) }),
          ),
      },
    ),
  );
  if (trained.tokens.length < vocabSize)
    throw new DataError(`vocabSize: expected text for ${vocabSize} tokens, got enough for ${trained.tokens.length}`, {
      hint: vocabularyHint(trained, read.characters, settings),
    });
  const seconds = (performance.now() - started) / 1000;
  yield stage("tokenizer", `tokenizer: ${trained.tokens.length} tokens, ${trained.merges.length} merges in ${seconds.toFixed(1)} s`, {
    progress: 1,
    metrics: { seconds },
  });
  return { tokenizer: tokenizerFromTrained(trained, roles), save: (directory) => saveTokenizer(directory, trained, roles) };
}

/** A vocabulary that leaves enough tokens to train on: at the largest one most words of a text are a token that occurs once. */
function vocabularyHint({ tokens, merges }: TrainedBpe, characters: number, { sequenceLength, model, size }: PretrainSettings): string {
  const length = sequenceLength ?? model.contextLength ?? decoderPresets[size].options.contextLength;
  if (characters < 8 * length)
    return `Give more text: these are ${characters.toLocaleString("en")} characters, and a sequence alone has ${length} tokens.`;
  return `Give vocabSize ${tokens.length - Math.ceil(merges.length / 2)} or less, or more text.`;
}

/** Counts what it hands on. */
async function* textsOf(
  corpus: Corpus,
  { validation }: PretrainSettings,
  read: { characters: number },
  signal?: AbortSignal,
): AsyncGenerator<string> {
  const counted = (text: string): string => {
    read.characters += text.length;
    return text;
  };
  for await (const { text } of splitDocuments(corpus.documents({ signal }), "train", { validation })) yield counted(text);
  // All documents fell on the other side: the split will be by tokens (see holdOut), which are not there yet.
  if (read.characters === 0) for await (const { text } of corpus.documents({ signal })) yield counted(text);
}

/** The corpus as token ids in a cache below `directory`, made when missing. A failure leaves no empty folder behind. @throws DataError. */
export async function* tokenise(
  corpus: Corpus,
  tokenizer: Tokenizer,
  directory: string,
  signal: AbortSignal | undefined,
): AsyncGenerator<RunEvent, TokenFile> {
  const made = [directory, dirname(directory)].filter((path) => !existsSync(path));
  const encode = (text: string): Int32Array => tokenizer.encode(text, { addSpecialTokens: false });
  let isReused = false;
  try {
    const file = yield* follow((report: Report) =>
      openTokenCache(
        corpus,
        { encode, hash: tokenizer.hash, vocabularySize: tokenizer.vocabSize },
        {
          directory,
          signal,
          onEvent: (event) => {
            if (event.kind === "reused") isReused = true;
            if (event.kind !== "progress") return;
            const { tokens, bytes, totalBytes } = event;
            report(() => stage("data", `data: ${tokens.toLocaleString("en")} tokens so far`, { progress: bytes / totalBytes }));
          },
        },
      ),
    );
    const count = `${file.numTokens.toLocaleString("en")} tokens in ${file.numDocuments.toLocaleString("en")} documents`;
    const notes = [...(corpus.isCut ? ["long files are cut at blank lines: --split-by"] : []), ...(isReused ? ["tokenised before"] : [])];
    yield stage("data", `data: ${count}${notes.length > 0 ? ` (${notes.join("; ")})` : ""}`, { progress: 1 });
    return file;
  } catch (error) {
    for (const path of made) removeIfEmpty(path);
    throw error;
  }
}

function removeIfEmpty(path: string): void {
  try {
    rmdirSync(path);
  } catch {
    // Something is in it, or it was never made.
  }
}
