// What a user may write after --speculate: `none`, `lookup`, `suffix`, `draft:<model>`, `medusa:<folder>`, or a folder of trained heads; options
// follow as `,name=value`, for the first four. A drafter knows its target's vocabulary, so it is opened with the target.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { nearest, UsageError } from "../../base/errors.ts";
import type { Drafter } from "../../decode/drafter.ts";
import {
  DraftModelDrafter,
  type DraftModelOptions,
  draftModelSchema,
  LookupDrafter,
  lookupSchema,
  SuffixDrafter,
  suffixSchema,
  TrimmedVocabulary,
  VocabularyMap,
  type VocabularySide,
} from "../../decode/index.ts";
import type { InferenceModel } from "../../models/decoder/quantise.ts";
import type { Backend } from "../../runtime/backend.ts";
import { type Tokenizer, tokenBytes } from "../../text/index.ts";
import { isTrimmedDraft, loadTrimmedDraft } from "../draft-checkpoint.ts";
import { openDrafter as openHeads } from "../drafter-source.ts";
import { type LoadedModel, type LoadModelOptions, loadModel } from "./load-model.ts";

const kinds = ["none", "lookup", "suffix", "draft", "medusa"] as const;

export interface DrafterTarget {
  readonly backend: Backend;
  readonly model: InferenceModel;
  readonly tokenizer: Tokenizer;
  /** Positions of the target's cache. */
  readonly capacity: number;
}

/** How a draft model is loaded, and drafts. */
export interface OpenDrafterOptions extends Pick<LoadModelOptions, "weights" | "offline" | "onProgress" | "signal"> {
  /** Draft models draw their drafts, for verifiers that use their distribution. Default false: most probable tokens. */
  draw?: boolean;
}

/** Whether what a text names drafts from the target's logits alone: trained heads read other rows, for which its program is compiled anew. */
export function readsLogitsAlone(spec: string): boolean {
  const [kind] = spec.split(/[,:]/, 1);
  return isKind(kind) && kind !== "medusa";
}

/**
 * Opens the drafter that a text names; undefined for `none`. Who opens it disposes of it.
 * @throws UsageError for an unknown kind or option; FormatError, CheckpointError for models that cannot be read.
 */
export async function openDrafterSpec(spec: string, target: DrafterTarget, options: OpenDrafterOptions = {}): Promise<Drafter | undefined> {
  const [head, ...settings] = spec.split(",");
  const colon = head.indexOf(":");
  const [kind, path] = colon < 0 ? [head, undefined] : [head.slice(0, colon), head.slice(colon + 1)];
  // What is there is a folder of heads, whatever commas and colons its name has.
  const place = kind === "medusa" && path ? spec.slice(colon + 1) : spec;
  if ((place !== spec || !isKind(kind)) && existsSync(place) && !trimmedDraftFolder(place))
    return openHeads(target.backend, place, target.model, target.tokenizer.hash);
  const given = settingsOf(settings, spec);
  switch (kind) {
    case "none":
      refuseSettings(kind, given);
      return undefined;
    case "lookup":
      return new LookupDrafter(parsed(given, lookupSchema.shape));
    case "suffix":
      return new SuffixDrafter(parsed(given, suffixSchema.shape));
    case "draft": {
      if (!path)
        throw new UsageError("speculate: expected draft:<model>, got no model", { hint: "Name a smaller model of the same family." });
      const { weights, offline, onProgress, signal } = options;
      const folder = trimmedDraftFolder(path);
      if (folder)
        return openTrimmedDraft(folder, target, { ...(options.draw ? { draw: "sample" } : {}), ...parsed(given, draftModelSchema.shape) });
      const draft = await loadModel(path, { weights, offline, onProgress, signal });
      const chosen = parsed(given, draftModelSchema.shape);
      return openDraftModel(draft, target, { ...(options.draw ? { draw: "sample" } : {}), ...chosen });
    }
    case "medusa":
      refuseSettings(kind, given);
      if (!path)
        throw new UsageError("speculate: expected medusa:<folder>, got no folder", {
          hint: "Name a folder of heads that train-drafter wrote.",
        });
      return openHeads(target.backend, path, target.model, target.tokenizer.hash);
    default: {
      // A path: heads or a draft model that train-drafter wrote.
      if (colon < 0 && !/[/\\.]/.test(head)) {
        const near = nearest(kind, kinds);
        throw new UsageError(`speculate: expected ${kinds.join(", ")} or a folder of heads, got ${kind}`, {
          hint: near ? `Did you mean ${near}?` : "For example --speculate lookup.",
        });
      }
      const folder = trimmedDraftFolder(head);
      if (folder)
        return openTrimmedDraft(folder, target, { ...(options.draw ? { draw: "sample" } : {}), ...parsed(given, draftModelSchema.shape) });
      refuseSettings("a folder of heads", given);
      return openHeads(target.backend, spec, target.model, target.tokenizer.hash);
    }
  }
}

const isKind = (text: string): boolean => (kinds as readonly string[]).includes(text);

/** Heads bring their own settings, and without drafts there are none. */
function refuseSettings(what: string, given: ReadonlyMap<string, string>): void {
  if (given.size === 0) return;
  throw new UsageError(`speculate: expected no options after ${what}, which takes none, got ${[...given.keys()].join(", ")}`, {
    hint: "Options follow lookup, suffix and draft:<model>.",
  });
}

/** A drafter of a model that was loaded, through a map of vocabularies where they differ. */
export function openDraftModel(
  draft: LoadedModel,
  target: DrafterTarget,
  options: ConstructorParameters<typeof DraftModelDrafter>[2],
): DraftModelDrafter {
  const same = draft.tokenizer.hash === target.tokenizer.hash && draft.model.config.vocabSize === target.model.config.vocabSize;
  const learned = draft.model.config.position === "learned";
  return new DraftModelDrafter(target.backend, draft.model, options, {
    tokenizerHash: draft.tokenizer.hash,
    runner: { capacity: learned ? Math.min(draft.model.config.contextLength, target.capacity) : target.capacity },
    ...(same
      ? {}
      : { map: mapVocabularies(target.tokenizer, target.model.config.vocabSize, draft.tokenizer, draft.model.config.vocabSize) }),
  });
}

/** What `train-drafter --kind draft` left at a path: a draft model's own folder, or that of its run. */
const trimmedDraftFolder = (path: string): string | undefined => [path, join(path, "drafter")].find(isTrimmedDraft);

/** @throws UsageError for a draft model of another target. Its few weights are read as they are. */
function openTrimmedDraft(
  folder: string,
  { backend, model, tokenizer, capacity }: DrafterTarget,
  options: DraftModelOptions,
): DraftModelDrafter {
  const { decoder, vocabulary } = loadTrimmedDraft(folder);
  const { target_ids: ids, target_vocab_size: size, tokenizer_hash: hash } = vocabulary;
  if (size !== model.config.vocabSize || hash !== tokenizer.hash)
    throw new UsageError(
      `draft model ${folder}: expected a target of ${size} tokens with the tokenizer that it was trained for, got ${
        size === model.config.vocabSize ? "another tokenizer" : `one of ${model.config.vocabSize} tokens`
      }`,
      { hint: "Train one for this model: longwave train-drafter --kind draft." },
    );
  return new DraftModelDrafter(backend, decoder, options, { map: new TrimmedVocabulary(ids, size), runner: { capacity } });
}

function mapVocabularies(target: Tokenizer, targetSize: number, draft: Tokenizer, draftSize: number): VocabularyMap {
  const side = (tokenizer: Tokenizer, size: number): VocabularySide => {
    const bytes = tokenBytes(tokenizer);
    return { size, bytesOf: (id) => bytes[id] };
  };
  const special = (["bos", "eos"] as const).flatMap((role): [number, number][] => {
    const [a, b] = [target.specialIds[role], draft.specialIds[role]];
    return a === undefined || b === undefined ? [] : [[a, b]];
  });
  return new VocabularyMap({
    target: side(target, targetSize),
    draft: side(draft, draftSize),
    encodeDraft: (bytes) => draft.encode(Buffer.from(bytes).toString("utf8"), { addSpecialTokens: false, parseSpecialTokens: false }),
    special,
  });
}

function settingsOf(settings: readonly string[], spec: string): Map<string, string> {
  return new Map(
    settings.map((setting) => {
      const equals = setting.indexOf("=");
      if (equals <= 0)
        throw new UsageError(`speculate: expected name=value after the comma, got ${JSON.stringify(setting)} in ${spec}`, {
          hint: "For example lookup,numTokens=8.",
        });
      return [setting.slice(0, equals).trim(), setting.slice(equals + 1).trim()];
    }),
  );
}

/** Values of a schema's fields, by the look of the text; unknown names are errors with the nearest one. */
function parsed(given: ReadonlyMap<string, string>, shape: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const names = Object.keys(shape);
  return Object.fromEntries(
    [...given].map(([name, text]) => {
      if (!names.includes(name)) {
        const near = nearest(name, names);
        throw new UsageError(`speculate: expected ${names.join(", ")}, got ${name}`, { hint: near ? `Did you mean ${near}?` : undefined });
      }
      const number = Number(text);
      return [name, text === "true" ? true : text === "false" ? false : text !== "" && !Number.isNaN(number) ? number : text];
    }),
  );
}
