// Models from the Hugging Face hub by name, into the cache folder that Python's huggingface_hub uses too:
// models--OWNER--NAME/{blobs/HASH, snapshots/COMMIT/FILE → blob, refs/REVISION}. Lists come through @huggingface/hub; files are fetched
// here, because they are resumed and compared with their hash. Files and links appear whole, so that several processes may download at once.
// Nothing is requested until a function is called.
import { randomBytes } from "node:crypto";
import { copyFileSync, existsSync, readdirSync, readFileSync, renameSync, symlinkSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join, relative } from "node:path";
import type { ListFileEntry } from "@huggingface/hub";
import { writeFileAtomic } from "../base/atomic.ts";
import { LongwaveError, RemoteError, UsageError } from "../base/errors.ts";
import { makeDirectories } from "../base/make-directories.ts";
import { fetchWithRetries, type RemoteFile, refusal, type TransferOptions, transfer } from "./hub-transfer.ts";
import { readJsonObject } from "./json-file.ts";

export interface HubProgress {
  /** Name in the repository. */
  readonly file: string;
  /** Bytes on the disk, those of an earlier try included. */
  readonly loaded: number;
  readonly total: number;
}

export interface HubOptions {
  /** Called as bytes arrive, at least once a file. What it throws ends the download; the next one goes on from there. */
  onProgress?: (progress: HubProgress) => void;
  /** Never ask the hub: use what is in the cache. Default: whether HF_HUB_OFFLINE says so. */
  offline?: boolean;
  signal?: AbortSignal;
  /** Access token. Default: HF_TOKEN. */
  token?: string;
  /** Default: HF_HUB_CACHE, else HF_HOME/hub, else ~/.cache/huggingface/hub. */
  cacheDir?: string;
  /** Default: HF_ENDPOINT, else https://huggingface.co. */
  hubUrl?: string;
  /** The GGUF file to take from a repository that holds several. */
  file?: string;
  /** Attempts at each request. Default 5. */
  attempts?: number;
  /** Pause before the second attempt, doubled from one to the next. Default 1000. */
  retryDelayMs?: number;
  /** Default: the global one. */
  fetch?: typeof fetch;
}

interface Repository {
  readonly name: string;
  readonly revision: string;
  /** In the cache. */
  readonly folder: string;
}

const commitPattern = /^[0-9a-f]{40}$/;

/**
 * Downloads what loading a model needs (configuration, tokenizer, weights) unless the cache has it.
 * @param source `owner/name` or `owner/name@revision` (a branch, tag or commit).
 * @returns the folder with config.json, or the path of the GGUF file of a repository of such files.
 * @throws RemoteError when the hub refuses, fails or sends something else than it lists; UsageError for a name that is none; AbortedError.
 */
export async function downloadModel(source: string, options: HubOptions = {}): Promise<string> {
  const repository = parseSource(source, options);
  const { HF_HUB_OFFLINE: setting = "", HF_TOKEN: environmentToken } = process.env;
  if (options.offline ?? /^(1|on|yes|true)$/i.test(setting)) return cached(repository, options);
  const token = options.token ?? (environmentToken || undefined);
  if (token !== undefined && !token.startsWith("hf_"))
    throw new UsageError('token: expected a token that starts with "hf_", got another text');
  const transferOptions: TransferOptions = {
    fetch: options.fetch ?? fetch,
    token,
    signal: options.signal,
    attempts: options.attempts ?? 5,
    retryDelayMs: options.retryDelayMs ?? 1000,
  };
  const hubUrl = (options.hubUrl ?? (process.env.HF_ENDPOINT || "https://huggingface.co")).replace(/\/+$/, "");
  const hub = {
    hubUrl,
    fetch: ((url: string, init: RequestInit = {}) => fetchWithRetries(url, init, transferOptions)) as typeof fetch,
    ...(token === undefined ? {} : { accessToken: token as `hf_${string}` }),
  };
  const listed = await list(source, repository, hub).catch((error: unknown) => {
    // A hub that cannot be reached is no reason to refuse what is there; one that says no is.
    if (error instanceof RemoteError && error.cause !== undefined && isCached(repository, options)) return undefined;
    throw error;
  });
  if (listed === undefined) return cached(repository, options);
  const { commit, entries } = listed;
  const wanted = selectFiles(source, entries, options.file);
  const snapshot = join(repository.folder, "snapshots", commit);
  for (const entry of wanted) {
    const file = remoteFile(
      entry,
      `${hubUrl}/${repository.name}/resolve/${commit}/${entry.path.split("/").map(encodeURIComponent).join("/")}`,
      source,
    );
    await fetchFile(file, entry.path, repository, snapshot, transferOptions, options.onProgress);
  }
  // Only now: a revision in `refs` has all its files.
  if (repository.revision !== commit) {
    const reference = join(repository.folder, "refs", ...repository.revision.split("/"));
    makeDirectories(dirname(reference));
    writeFileAtomic(reference, commit);
  }
  return resultOf(
    snapshot,
    wanted.map(({ path }) => path),
  );
}

interface HubAccess {
  readonly hubUrl: string;
  readonly fetch: typeof fetch;
  readonly accessToken?: `hf_${string}`;
}

/** The commit that a revision is, and its files. @throws RemoteError; its cause is set when no answer came. */
async function list(source: string, { name, revision }: Repository, hub: HubAccess): Promise<{ commit: string; entries: ListFileEntry[] }> {
  const { HubApiError, listFiles, modelInfo } = await import("@huggingface/hub");
  try {
    const { sha: commit } = await modelInfo({ name, revision, additionalFields: ["sha"], ...hub });
    if (!commitPattern.test(commit))
      throw new RemoteError(`${source}: expected a commit of 40 hexadecimal digits, got "${String(commit).slice(0, 60)}"`);
    const entries: ListFileEntry[] = [];
    for await (const entry of listFiles({ repo: name, revision: commit, ...hub })) entries.push(entry);
    return { commit, entries };
  } catch (cause) {
    if (cause instanceof LongwaveError) throw cause;
    if (cause instanceof HubApiError) throw refusal(cause.statusCode, source);
    throw new RemoteError(`${source}: expected the hub's description, got "${(cause as Error).message.slice(0, 200)}"`, {
      hint: "Try again later.",
    });
  }
}

/** @throws UsageError. */
function parseSource(source: string, { cacheDir }: HubOptions): Repository {
  const match = /^([\w][\w.-]*)\/([\w][\w.-]*)(?:@([\w][\w./-]*))?$/.exec(source);
  const revision = match?.[3] ?? "main";
  if (match === null || revision.split("/").some((part) => part === "" || part === "." || part === ".."))
    throw new UsageError(`model: expected owner/name or owner/name@revision, got ${JSON.stringify(source.slice(0, 100))}`, {
      hint: "For example HuggingFaceTB/SmolLM2-135M-Instruct.",
    });
  const { HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME } = process.env;
  const home = HF_HOME || join(XDG_CACHE_HOME || join(homedir(), ".cache"), "huggingface");
  const cache = cacheDir ?? (HF_HUB_CACHE || join(home, "hub"));
  return { name: `${match[1]}/${match[2]}`, revision, folder: join(cache, `models--${match[1]}--${match[2]}`) };
}

const companions = new Set([
  "config.json",
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "chat_template.jinja",
  "chat_template.json",
]);

/** Configuration, tokenizer, and the weights in the best format that is there. @throws RemoteError when there are none. */
function selectFiles(source: string, entries: readonly ListFileEntry[], file: string | undefined): ListFileEntry[] {
  // In the root only: folders hold other formats and originals.
  const files = entries.filter(({ type, path }) => type === "file" && !path.includes("/"));
  const matching = (pattern: RegExp): ListFileEntry[] => files.filter(({ path }) => pattern.test(path));
  const hasConfig = files.some(({ path }) => path === "config.json");
  const safetensors = [/^model\.safetensors$/, /^model(-\d+-of-\d+\.safetensors|\.safetensors\.index\.json)$/];
  const torch = [/^pytorch_model\.bin$/, /^pytorch_model(-\d+-of-\d+\.bin|\.bin\.index\.json)$/];
  const weights = hasConfig && file === undefined ? [...safetensors, ...torch].map(matching).find((found) => found.length > 0) : undefined;
  if (weights) return [...files.filter(({ path }) => companions.has(path)), ...weights];
  const gguf = matching(/\.gguf$/i);
  const chosen = file === undefined ? gguf : gguf.filter(({ path }) => path === file);
  if (chosen.length === 1) return chosen;
  const names = gguf.map(({ path }) => path).join(", ");
  throw new RemoteError(
    `${source}: expected config.json with weights, or one .gguf file, got ${
      names ||
      files
        .map(({ path }) => path)
        .slice(0, 8)
        .join(", ") ||
      "no files"
    }`,
    {
      hint: names ? "Name one of these files." : "This repository holds no model of a supported format.",
    },
  );
}

/** What the list says of a file. @throws RemoteError. */
function remoteFile({ path, size: listed, oid, lfs }: ListFileEntry, url: string, source: string): RemoteFile {
  const size = lfs?.size ?? listed;
  const hash: RemoteFile["hash"] = lfs ? { kind: "sha256", hex: lfs.oid } : { kind: "git", hex: String(oid) };
  const isPlain = /^[\w][\w.-]*$/.test(path) && (hash.kind === "sha256" ? /^[0-9a-f]{64}$/ : commitPattern).test(hash.hex);
  if (!isPlain || ![size, listed].every((bytes) => Number.isSafeInteger(bytes) && bytes >= 0)) {
    throw new RemoteError(
      `${source}: expected a plain file name with size and hash, got ${JSON.stringify({ path, size, hash: hash.hex }).slice(0, 200)}`,
    );
  }
  return { url, name: `${source}/${path}`, size, hash };
}

async function fetchFile(
  file: RemoteFile,
  path: string,
  { folder }: Repository,
  snapshot: string,
  options: TransferOptions,
  onProgress: HubOptions["onProgress"],
): Promise<void> {
  const link = join(snapshot, path);
  const blob = join(folder, "blobs", file.hash.hex);
  const report = (loaded: number): void => onProgress?.({ file: path, loaded, total: file.size });
  if (!existsSync(link)) {
    makeDirectories(dirname(blob));
    makeDirectories(snapshot);
    if (!existsSync(blob)) await transfer(file, blob, options, report);
    placeLink(blob, link);
  }
  report(file.size);
}

/** A relative link, so that the cache can be moved; a copy where links are not allowed (Windows). */
function placeLink(blob: string, link: string): void {
  // Made aside: another process may place the same link, or read it, at this moment.
  const aside = `${link}.${randomBytes(6).toString("hex")}`;
  try {
    symlinkSync(relative(dirname(link), blob), aside);
  } catch {
    copyFileSync(blob, aside);
  }
  renameSync(aside, link);
}

/** The copy in the cache. @throws RemoteError when there is none or part of it is missing. */
function cached(repository: Repository, options: HubOptions): string {
  const found = findCached(repository, options);
  if (found !== undefined) return found;
  const { name, revision, folder } = repository;
  throw new RemoteError(`${name}@${revision}: expected a whole copy in the cache, got none in ${folder}`, {
    hint: "Run once with a connection, and without HF_HUB_OFFLINE.",
  });
}

const isCached = (repository: Repository, options: HubOptions): boolean => findCached(repository, options) !== undefined;

function findCached({ revision, folder }: Repository, { file }: HubOptions): string | undefined {
  const reference = join(folder, "refs", ...revision.split("/"));
  const commit = commitPattern.test(revision) ? revision : existsSync(reference) ? readFileSync(reference, "utf8").trim() : "";
  const snapshot = join(folder, "snapshots", commit);
  if (!commitPattern.test(commit) || !existsSync(snapshot)) return undefined;
  // A link whose blob is gone counts as missing.
  const paths = readdirSync(snapshot).filter((path) => existsSync(join(snapshot, path)));
  const index = paths.find((path) => path.endsWith(".index.json"));
  const needed =
    index === undefined ? [] : Object.values((readJsonObject(join(snapshot, index)).weight_map ?? {}) as Record<string, string>);
  const hasWeights = paths.some((path) => /\.(safetensors|bin)$/.test(path)) && needed.every((path) => paths.includes(path));
  if (file === undefined && paths.includes("config.json") && hasWeights) return snapshot;
  const gguf = paths.filter((path) => /\.gguf$/i.test(path) && (file === undefined || path === file));
  return gguf.length === 1 ? join(snapshot, gguf[0]) : undefined;
}

const resultOf = (snapshot: string, paths: readonly string[]): string =>
  paths.length === 1 && /\.gguf$/i.test(paths[0]) ? join(snapshot, paths[0]) : snapshot;
